"""Runs as they lie in their folders: what they were, how they went, and what they scored, read for others to print."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residuum.errors import UserError

if TYPE_CHECKING:
    from residuum.evaluation.answers import Answers, LabelAnswers
    from residuum.evaluation.published import Published
    from residuum.evaluation.scores import Evaluation
    from residuum.training.run_folder import RunFolder

CALIBRATED = "-calibrated"

_NEEDED: tuple[tuple[str, str, type], ...] = (
    ("run", "model", dict),
    ("run", "data", dict),
    ("data", "spec", str),
    ("data", "classes", list),
    ("data", "images", dict),
)


@dataclass(frozen=True)
class RunRecord:
    """A run: `run.json`, the lines of `metrics.jsonl`, its evaluations and its answers by split.

    calibrated: the answers with the temperature that was fitted later, where one was; temperature: its "value" and the
    split it was "fitted_on". published: what is printed of the network, by split. faults: what could not be read.
    """

    path: Path
    manifest: Mapping[str, Any]
    metrics: "tuple[Mapping[str, Any], ...]"
    evaluations: "Mapping[str, Evaluation]"
    answers: "Mapping[str, Answers | LabelAnswers]"
    calibrated: "Mapping[str, Answers | LabelAnswers]"
    published: "Mapping[str, tuple[Published, ...]]"
    temperature: Mapping[str, Any] | None
    faults: tuple[str, ...]

    @property
    def model(self) -> str:
        name: str = self.manifest["run"]["model"]["name"]
        return name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["data"]["classes"])

    @property
    def status(self) -> str:
        """ "running", "finished", "failed", "interrupted"; or "killed": it ended without a word."""
        from residuum.training.run_folder import RunFolder

        status: str = self.manifest.get("status") or "unknown"
        return "killed" if status == "running" and not RunFolder(self.path).is_held else status

    @property
    def watched(self) -> str:
        """The split that training watched, as `DataSet.monitored` chooses it."""
        return "val" if "val" in self.manifest["data"]["images"] else "test"

    @property
    def split(self) -> str | None:
        """The split to judge the run by, as `DataSet.held_out` chooses it; None before it is finished."""
        return next((name for name in ("test", "val") if name in self.evaluations), None)


def read_run(path: Path) -> RunRecord:
    """The run at `path`. Raises UserError where there is none, and where its `run.json` is damaged."""
    from residuum.evaluation.scores import Evaluation
    from residuum.hub import is_on_hub
    from residuum.training.run_folder import RunFolder

    if is_on_hub(path):
        raise UserError(f"{path} is a model without its run; measure it with: residuum evaluate {path} DATA")
    folder = RunFolder(path)
    manifest = folder.read_manifest()
    _check(folder, manifest)
    try:
        plain = manifest.get("results") or {}
        found = {name: Evaluation.from_plain(values) for name, values in plain.items()}
    except (KeyError, TypeError, AttributeError, ValueError, AssertionError):
        raise UserError(f"{folder.manifest} has damaged results; evaluate the model anew: residuum evaluate") from None
    images = {name: one.images for name, one in found.items()}
    classes = tuple(manifest["data"]["classes"])
    faults: list[str] = []
    answers = {name: _answers(folder, name, classes, count, faults) for name, count in images.items()}
    calibrated = {name: _answers(folder, f"{name}{CALIBRATED}", classes, count, []) for name, count in images.items()}
    return RunRecord(
        path,
        manifest,
        tuple(folder.read_metrics()),
        found,
        {name: one for name, one in answers.items() if one is not None},
        {name: one for name, one in calibrated.items() if one is not None},
        _published(manifest),
        _temperature(folder),
        tuple(faults),
    )


def _check(folder: "RunFolder", manifest: Mapping[str, Any]) -> None:
    for part, name, kind in _NEEDED:
        if not isinstance(manifest[part].get(name), kind):
            raise UserError(f"{folder.manifest} lacks {part}.{name}; it is damaged, or of another version of residuum")


def _answers(
    folder: "RunFolder", name: str, classes: tuple[str, ...], images: int, faults: list[str]
) -> "Answers | LabelAnswers | None":
    from residuum.evaluation.answers import read_answers

    file = folder.predictions(name)
    again = f"write it anew with: residuum evaluate {folder.path} DATA --split {name}"
    if not file.exists():
        faults.append(f"{file} is not there; {again}")
        return None
    try:
        answers = read_answers(file, classes)
    except UserError as error:
        faults.append(f"{error}; {again}")
        return None
    if len(answers.labels) != images:
        faults.append(f"{file} holds {len(answers.labels):,} images and {images:,} were measured; {again}")
        return None
    return answers


def _published(manifest: Mapping[str, Any]) -> "dict[str, tuple[Published, ...]]":
    from residuum.evaluation.published import Published

    recorded = manifest.get("published")
    try:
        return {name: tuple(Published(**row) for row in rows) for name, rows in (recorded or {}).items()}
    except (TypeError, AttributeError):
        return {}


def _temperature(folder: "RunFolder") -> dict[str, Any] | None:
    from residuum.model_config import read_temperature

    try:
        value, fitted_on = read_temperature(folder.path)
    except UserError:
        return None
    return {"value": value, "fitted_on": fitted_on.get("split", "")} if fitted_on else None
