"""What came of a study's members, and the numbers that answers are made of: spreads, contrasts, tables, curves."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from residuum.errors import UserError, counted
from residuum.evaluation.answers import Answers, read_answers
from residuum.evaluation.scores import Evaluation
from residuum.evaluation.significance import mcnemar
from residuum.files import read_json
from residuum.records import Cell, Chart, Series, Table
from residuum.studies.members import Member, end_of
from residuum.studies.study import Plan, ScaleName
from residuum.studies.work import size_of
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder

Key = Literal["train_error", "train_loss", "test_error", "test_loss"]

UNITS: dict[Key, str] = {"train_error": "%", "train_loss": "nats", "test_error": "%", "test_loss": "nats"}
_ERRORS: dict[Key, str] = {"train_error": "train", "test_error": "test"}
_ROUNDING = 1e-9  # relative: what subtracting percentages leaves
SIGNIFICANT = 0.05
"""The p-value below which a difference counts as more than chance."""


@dataclass(frozen=True)
class Outcome:
    """What came of one member. `failed`: its loss was no number; `reason` says when.

    metrics: a record of each epoch, as in `metrics.jsonl`; evaluations: by split; measured: what the arm's measure
    gave. The training error and loss are those of the last epoch, of the images as they were seen. Errors are in %,
    losses in nats, NaN where the member failed.
    """

    arm: str
    seed: int
    folder: Path
    status: Literal["finished", "failed"] = "finished"
    reason: str = ""
    metrics: tuple[Mapping[str, Any], ...] = ()
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    run: Run | None = None
    classes: tuple[str, ...] = ()

    @property
    def split(self) -> str | None:
        """The split that the run is judged by: test, else val; None where it was not measured."""
        return next((name for name in ("test", "val") if name in self.evaluations), None)

    @property
    def train_error(self) -> float:
        return self._last("train_error")

    @property
    def train_loss(self) -> float:
        return self._last("train_loss")

    @property
    def test_error(self) -> float:
        return math.nan if self._judged is None else 100.0 - self._judged.score

    @property
    def test_loss(self) -> float:
        return math.nan if self._judged is None else self._judged.loss.value

    @property
    def seconds(self) -> float:
        """How long training took, evaluations left out; 0 where nothing was trained."""
        return float(sum(line["seconds"] for line in self.metrics))

    def answers(self) -> Answers | None:
        """What was said of each image of `split`, where it was kept."""
        file = RunFolder(self.folder).predictions(self.split or "")
        return cast(Answers, read_answers(file, self.classes)) if file.is_file() else None

    @property
    def _judged(self) -> Evaluation | None:
        return None if self.split is None or self.status == "failed" else self.evaluations[self.split]

    def _last(self, key: str) -> float:
        return float(self.metrics[-1][key]) if self.metrics and self.status == "finished" else math.nan


def read_outcome(member: Member, folder: Path) -> Outcome:
    """What lies in the folder of a member that is made."""
    found = _read_measured(folder / member.measured_file) if member.measure is not None else {}
    if member.run is None:
        return Outcome(member.arm, member.seed, folder, measured=found)
    run = RunFolder(folder)
    manifest = run.read_manifest()
    failure = manifest.get("failure") or {}
    evaluations = {name: Evaluation.from_plain(one) for name, one in (manifest.get("results") or {}).items()}
    return Outcome(
        arm=member.arm,
        seed=member.seed,
        folder=folder,
        status="failed" if end_of(folder) == "diverged" else "finished",
        reason=str(failure.get("message", "")),
        metrics=tuple(run.read_metrics()),
        evaluations=evaluations,
        measured=found,
        run=member.run,
        classes=tuple(manifest["data"]["classes"]),
    )


def _read_measured(file: Path) -> Mapping[str, Any]:
    if not file.is_file():  # of a run that came to no end
        return {}
    try:
        found = read_json(file)
    except UserError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged; remove it and give the same command again: it is measured anew")
    return found


@dataclass(frozen=True)
class Results:
    """The outcomes of a study, by arm in the plan's order, one a seed."""

    scale: ScaleName
    data: str
    plan: Plan
    outcomes: Mapping[str, tuple[Outcome, ...]]

    def finished(self, arm: str) -> tuple[Outcome, ...]:
        """The arm's outcomes that came to an end."""
        return tuple(outcome for outcome in self.outcomes[arm] if outcome.status == "finished")

    def spread(self, arm: str, key: Key) -> "Spread":
        """The arm's mean and standard deviation over its finished seeds."""
        return spread(getattr(outcome, key) for outcome in self.finished(arm))


class Spread(NamedTuple):
    """Mean and sample standard deviation of n values; NaN where there are too few."""

    mean: float
    std: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.n > 1 else "")


def spread(values: Iterable[float]) -> Spread:
    """The spread of those values that are finite."""
    finite = [value for value in values if math.isfinite(value)]
    mean = float(np.mean(finite)) if finite else math.nan
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return Spread(mean, std, len(finite))


# Two arms.


class Contrast(NamedTuple):
    """How two arms differ: the second's mean less the first's, over the seeds that both finished.

    p: the probability of a difference at least this large were there none, by `test`; None where none applies.
    """

    first: str
    second: str
    key: Key
    means: tuple[float, float]
    p: float | None
    test: str
    seeds: int = 1

    @property
    def difference(self) -> float:
        return self.means[1] - self.means[0]

    @property
    def is_significant(self) -> bool:
        """Whether the difference is more than chance; of a single seed's training error nothing can be told."""
        return self.p is not None and self.p < SIGNIFICANT


def contrast(results: Results, first: str, second: str, key: Key = "test_error") -> Contrast:
    """Compare two arms seed by seed: a paired t-test; with one seed McNemar's exact test on the test images."""
    ours, theirs = ({one.seed: one for one in results.finished(arm)} for arm in (first, second))
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    values = np.array([[getattr(one, key) for one in pair] for pair in pairs]).reshape(-1, 2)
    means = tuple(values.mean(axis=0)) if len(pairs) else (math.nan, math.nan)
    p, test = _paired_t(values) if len(pairs) > 1 else _of_one_seed(pairs, key)
    return Contrast(first, second, key, (float(means[0]), float(means[1])), p, test, len(pairs))


def _paired_t(values: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[float | None, str]:
    from scipy.stats import ttest_rel  # takes a second to import

    differences = values[:, 1] - values[:, 0]
    if np.ptp(differences) <= _ROUNDING * max(1.0, float(np.abs(values).max())):  # the test divides by their spread
        return None, ""
    return float(ttest_rel(values[:, 1], values[:, 0]).pvalue), f"paired t-test over {len(values)} seeds"


def _of_one_seed(pairs: Sequence[tuple[Outcome, Outcome]], key: Key) -> tuple[float | None, str]:
    if key != "test_error" or not pairs:
        return None, ""
    answers = [one.answers() for one in pairs[0]]
    if answers[0] is None or answers[1] is None:
        return None, ""
    return mcnemar(answers[0].right, answers[1].right).p_value, "McNemar's test, one seed"


def in_words(found: Contrast) -> str:
    """ "plain-56 has a training error of 12.30 %, plain-20 of 4.50 %: 7.80 points more (p = 0.003, ...)"."""
    if not found.seeds:
        return f"{found.second} and {found.first} cannot be compared: they have no finished seed in common"
    what, unit = found.key.replace("train", "training").replace("_", " "), UNITS[found.key]
    first, second = (f"{mean:.2f} %" if unit == "%" else f"{mean:.3f} {unit}" for mean in found.means)
    size = f"{abs(found.difference):.2f} points" if unit == "%" else f"{abs(found.difference):.3f} {unit}"
    way = f"{size} more" if found.difference > 0 else f"{size} less" if found.difference < 0 else "no difference"
    untested = "one seed, no test of chance" if found.seeds == 1 else f"the same with each of {found.seeds} seeds"
    sure = untested if found.p is None else f"p {_p_text(found.p)}, {found.test}"
    return f"{found.second} has a {what} of {second}, {found.first} of {first}: {way} ({sure})"


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


# Tables and curves.


def arms_table(results: Results, title: str, extra: Mapping[str, Callable[[str], Cell]] | None = None) -> Table:
    """A row an arm that trains: size, errors and how many seeds came to an end; `extra` adds columns by arm.

    Standard deviations have columns where there are several seeds.
    """
    several = any(results.spread(arm, "test_error").n > 1 for arm in results.outcomes)
    columns: dict[str, Callable[[str], Cell]] = {"parameters": lambda arm: parameters(results, arm)}
    for key, name in _ERRORS.items():
        columns[f"{name} error [%]"] = _column(results, key, "mean")
        if several:
            columns[f"± {name} [%]"] = _column(results, key, "std")
    columns |= {"seeds": lambda arm: len(results.finished(arm)), **(extra or {})}
    rows = tuple((arm, *(cell(arm) for cell in columns.values())) for arm in results.outcomes)
    return Table(title, ("arm", *columns), rows, tuple(_failures(results)))


def _column(results: Results, key: Key, part: Literal["mean", "std"]) -> Callable[[str], Cell]:
    def cell(arm: str) -> Cell:
        return known(getattr(results.spread(arm, key), part))

    return cell


def known(value: float) -> float | None:
    """A number for a table; None, which it shows as nothing, for one that is none."""
    return value if math.isfinite(value) else None


def _failures(results: Results) -> Iterable[str]:
    for arm, outcomes in results.outcomes.items():
        failed = [one for one in outcomes if one.status == "failed"]
        if failed:
            yield f"{arm}: {counted(len(failed), 'seed')} of {len(outcomes)} did not train ({failed[0].reason})"


def parameters(results: Results, arm: str) -> int | None:
    """How many weights the arm's network has; None where nothing is trained."""
    first = results.outcomes[arm][0]
    return None if first.run is None else size_of(first.run, len(first.classes)).parameters


def curve(
    outcomes: Sequence[Outcome],
    key: str,
    name: str,
    label: str,
    *,
    run: int | None = None,
    is_training: bool = False,
) -> Series:
    """The mean over the outcomes of a number in `metrics.jsonl`, epoch by epoch, with its standard deviation."""
    by_epoch: dict[int, list[float]] = {}
    for outcome in outcomes:
        for line in outcome.metrics:
            if line.get(key) is not None:
                by_epoch.setdefault(line["epoch"], []).append(line[key])
    spreads = {epoch: spread(values) for epoch, values in sorted(by_epoch.items())}
    return Series(
        name=name,
        x=tuple(map(float, spreads)),
        y=tuple(one.mean for one in spreads.values()),
        x_label="epoch",
        y_label=label,
        run=run,
        is_training=is_training,
        spread=_spreads(spreads.values()),
    )


def _spreads(spreads: Iterable[Spread]) -> tuple[float, ...]:
    """The standard deviations, 0 where there is none; nothing at all where no value has one."""
    stds = [one.std for one in spreads]
    return tuple(0.0 if math.isnan(std) else std for std in stds) if any(std > 0 for std in stds) else ()


def error_chart(results: Results, arms: Sequence[str] | None = None, title: str = "Error over the epochs") -> Chart:
    """Training error, thin, and test (or validation) error, bold, of every arm that trains: He15, figures 4 and 6."""
    chosen = [arm for arm in arms or results.outcomes if any(one.metrics for one in results.outcomes[arm])]
    panels, judged = [], watched_split(results)
    for key, kind, is_training in (
        ("train_error", "training error [%]", True),
        ("val_error", f"{judged} error [%]", False),
    ):
        curves = [
            curve(results.outcomes[arm], key, arm, kind, run=number, is_training=is_training)
            for number, arm in enumerate(chosen)
        ]
        panels.append(tuple(one for one in curves if one.x))
    last = ", ".join(f"{arm} {results.spread(arm, 'test_error').mean:.2f} %" for arm in chosen)
    return Chart(title, tuple(filter(None, panels)), f"{title}. Test error at the end: {last}", log_y=True)


def watched_split(results: Results) -> str:
    """Which images the runs were watched on: "validation"; where there are none, "test"."""
    has_validation = any("val" in one.evaluations for outcomes in results.outcomes.values() for one in outcomes)
    return "validation" if has_validation else "test"


def over(
    results: Results,
    x: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
    key: Key,
    x_label: str,
    y_label: str,
) -> tuple[Series, ...]:
    """One panel: for each group a line through its arms' means at `x`, ± the standard deviation over the seeds."""
    lines = []
    for number, (group, arms) in enumerate(groups.items()):
        finished = [arm for arm in arms if results.finished(arm)]
        spreads = [results.spread(arm, key) for arm in finished]
        lines.append(
            Series(
                name=group,
                x=tuple(float(x[arm]) for arm in finished),
                y=tuple(one.mean for one in spreads),
                x_label=x_label,
                y_label=y_label,
                run=number,
                is_training=key.startswith("train"),
                spread=_spreads(spreads),
                has_markers=True,
            )
        )
    return tuple(line for line in lines if line.x)
