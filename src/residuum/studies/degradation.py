"""Degradation: a deeper plain network has a higher training error than a shallower one; its residual twin has not."""

from dataclasses import replace
from typing import NamedTuple

from residuum.data.facts import DataFacts
from residuum.evaluation.published import CIFAR_10, SINGLE_VIEW, published_for
from residuum.records import Chart, Series
from residuum.studies.results import (
    Contrast,
    Results,
    arms_table,
    contrast,
    curve,
    in_words,
    known,
    over,
    watched_split,
)
from residuum.studies.settings import base_run, is_large
from residuum.studies.small_images import cifar_plan
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

PLAIN, RESIDUAL = "plain", "resnet"
_DEPTHS: dict[ScaleName, tuple[int, ...]] = {
    "smoke": (20, 56),
    "small": (20, 32, 44, 56),
    "paper": (20, 32, 44, 56, 110),
}
_LARGE_DEPTHS = (18, 34)
_SETTINGS: dict[ScaleName, tuple[str, ...]] = {
    "smoke": ("optimizer.lr=0.02", "epochs=8"),
    "small": ("optimizer.lr=0.02",),
    "paper": (),
}
_CLEAR = 1.0  # points of training error: less is no degradation, however sure it is


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """Plain and residual networks of the same layers, `plain-20` to `resnet-110`; of images above 64 pixels 18 and 34.

    Residual ones have shortcuts of option A, so that twins have exactly as many weights. Below paper scale the learning
    rate is 0.02: at the published 0.1 a few hundred updates leave a residual network of 56 layers behind one of 20,
    too. Smoke has 8 epochs, in which plain-20 and both residual networks learn the digits' 1,438 training images.
    """
    depths = _LARGE_DEPTHS if is_large(facts) else _DEPTHS[scale]
    arms = tuple(_arm(scale, facts, kind, depth) for kind in (PLAIN, RESIDUAL) for depth in depths)
    return cifar_plan(scale, arms, seeds=3)


def _arm(scale: ScaleName, facts: DataFacts, kind: str, depth: int) -> Arm:
    changes = () if is_large(facts) else _SETTINGS[scale]
    run = base_run(scale, facts, f"{kind}{depth}", *changes)
    option_a = run.model if kind == PLAIN or not is_large(facts) else replace(run.model, shortcut="A")
    return Arm(f"{kind}-{depth}", replace(run, model=option_a))


def kind_and_depth(arm: str) -> tuple[str, int]:
    """ "plain-20" -> ("plain", 20)."""
    kind, _, depth = arm.partition("-")
    return kind, int(depth)


def answer(results: Results) -> Finding:
    """Whether the deepest network of each kind trains worse than the shallowest, and He et al.'s figures 1, 4 and 6."""
    pairs = [_Pair.of(results, kind) for kind in (PLAIN, RESIDUAL)]
    extra = {"train loss": lambda arm: known(results.spread(arm, "train_loss").mean)}
    published = {arm: figure for arm in results.outcomes if (figure := _published(results, arm)) is not None}
    if published:
        extra["published test error [%]"] = published.get
    notes = ("He et al. 2015 print no errors of plain networks on CIFAR-10.",) if published else ()
    return Finding(
        verdict=_verdict(*pairs),
        table=arms_table(results, "Plain and residual networks over depth", extra),
        charts=(_curves(results), *_over_depth(results)),
        notes=notes,
    )


class _Pair(NamedTuple):
    """The shallowest and the deepest network of a kind, and how their training errors and losses differ."""

    shallow: str
    deep: str
    error: Contrast
    loss: Contrast
    lost: tuple[str, ...]  # those of the two of which no seed came to an end

    @classmethod
    def of(cls, results: Results, kind: str) -> "_Pair":
        arms = sorted((arm for arm in results.outcomes if kind_and_depth(arm)[0] == kind), key=kind_and_depth)
        shallow, deep = arms[0], arms[-1]
        error, loss = (contrast(results, shallow, deep, key) for key in ("train_error", "train_loss"))
        return cls(shallow, deep, error, loss, tuple(arm for arm in (shallow, deep) if not results.finished(arm)))

    @property
    def has_diverged(self) -> bool:
        """Whether depth alone keeps the kind from training."""
        return self.lost == (self.deep,)

    @property
    def is_comparable(self) -> bool:
        return self.has_diverged or self.error.seeds > 0

    @property
    def is_higher(self) -> bool:
        """Whether the deeper one's training error is higher by a point, and its loss by anything, chance or not."""
        return self.error.difference > _CLEAR and self.loss.difference > 0

    @property
    def degrades(self) -> bool:
        """Whether the deeper one trains worse, and by more than chance where that can be tested."""
        return self.has_diverged or (self.is_higher and (self.error.p is None or self.error.is_significant))

    @property
    def is_open(self) -> bool:
        """Whether it trains worse by what may be chance."""
        return self.is_higher and not self.degrades

    @property
    def words(self) -> str:
        if self.has_diverged:
            return f"{self.deep} does not train at all, its loss is no number, and {self.shallow} does"
        if self.is_comparable:
            return in_words(self.error)
        if self.lost:
            return f"of {' and '.join(self.lost)} no seed trained, the loss is no number"
        return f"no seed trained both {self.shallow} and {self.deep}"


def _verdict(plain: _Pair, residual: _Pair) -> str:
    return f"{_finding(plain, residual)}. {plain.words}; {residual.words}."


def _finding(plain: _Pair, residual: _Pair) -> str:
    lost = [kind for kind, pair in (("plain", plain), ("residual", residual)) if not pair.is_comparable]
    if lost:
        return f"No answer: the {' and the '.join(lost)} networks did not train"
    if plain.degrades and residual.degrades:
        return "The deeper network trains worse with shortcuts, too, not only without"
    if plain.degrades:
        twin = f"of its residual twin that is {_chance(residual)}" if residual.is_open else "its residual twin does not"
        return f"Degradation: the deeper plain network trains worse, {twin}"
    if plain.is_open:
        twin = ", while the deeper residual one trains worse" if residual.degrades else ""
        return f"No clear answer: that the deeper plain network trains worse is {_chance(plain)}{twin}"
    if residual.degrades:
        return "Against the paper, the deeper residual network trains worse here and the plain one does not"
    if residual.is_open:
        return (
            "The deeper plain network does not train clearly worse here; "
            f"that the deeper residual one does is {_chance(residual)}"
        )
    return "No degradation is seen here: the deeper plain network does not train clearly worse"


def _chance(pair: _Pair) -> str:
    return f"not told apart from chance by {pair.error.seeds} seeds"


def _published(results: Results, arm: str) -> float | None:
    run = results.outcomes[arm][0].run
    if run is None or results.scale != "paper" or results.data != "cifar10":
        return None
    found = published_for(run.model.name, run.model.shortcut, CIFAR_10, SINGLE_VIEW)
    return found[0].top1_error if found else None


# Figures.


def _curves(results: Results) -> Chart:
    """Training and test error over the epochs, plain networks left and residual ones right: figures 4 and 6."""
    panels = [_panel(results, kind) for kind in (PLAIN, RESIDUAL)]
    ends = ", ".join(f"{arm} {results.spread(arm, 'train_error').mean:.2f} %" for arm in results.outcomes)
    return Chart(
        "Error over the epochs: plain, and residual",
        tuple(panel for panel in panels if panel),
        f"Training and {watched_split(results)} error, plain and residual; training error at the end: {ends}",
    )


def _panel(results: Results, kind: str) -> tuple[Series, ...]:
    arms = [arm for arm in results.outcomes if kind_and_depth(arm)[0] == kind and results.outcomes[arm][0].metrics]
    judged = watched_split(results)
    return tuple(
        curve(
            results.outcomes[arm],
            f"{split}_error",
            f"{arm}, {'training' if split == 'train' else judged}",
            "error [%]",
            run=number,
            is_training=split == "train",
        )
        for number, arm in enumerate(arms)
        for split in ("train", "val")
    )


def _over_depth(results: Results) -> tuple[Chart, ...]:
    depths = {arm: float(kind_and_depth(arm)[1]) for arm in results.outcomes}
    groups = {kind: [arm for arm in depths if kind_and_depth(arm)[0] == kind] for kind in (PLAIN, RESIDUAL)}
    panels = (
        over(results, depths, groups, "train_error", "layers", "training error [%]"),
        over(results, depths, groups, "test_error", "layers", "test error [%]"),
    )
    alt = "Training and test error over the number of layers, mean and standard deviation over the seeds"
    return (Chart("Error over depth", panels, alt),) if all(panels) else ()


STUDY = Study(
    name="degradation",
    question="Does a deeper network train worse, and is that so with shortcuts, too?",
    source="He et al. 2015, section 4.1, figures 1, 4 and 6",
    plan=plan,
    answer=answer,
)
