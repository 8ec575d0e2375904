"""Runs as they lie in their folders: what they were, how they went, and what they scored, read for others to print."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residuum.errors import UserError

if TYPE_CHECKING:
    from residuum.evaluation.answers import Answers, LabelAnswers
    from residuum.evaluation.scores import Evaluation

CALIBRATED = "-calibrated"


@dataclass(frozen=True)
class RunRecord:
    """A run: `run.json`, the lines of `metrics.jsonl`, its evaluations and its answers by split.

    calibrated: the answers with the temperature that was fitted later, where one was.
    """

    path: Path
    manifest: Mapping[str, Any]
    metrics: "tuple[Mapping[str, Any], ...]"
    evaluations: "Mapping[str, Evaluation]"
    answers: "Mapping[str, Answers | LabelAnswers]"
    calibrated: "Mapping[str, Answers | LabelAnswers]"

    @property
    def name(self) -> str:
        """What the run is called beside others."""
        return self.path.resolve().name

    @property
    def model(self) -> str:
        name: str = self.manifest["run"]["model"]["name"]
        return name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["data"]["classes"])

    @property
    def is_running(self) -> bool:
        return bool(self.manifest.get("status") == "running")

    @property
    def watched(self) -> str:
        """The split that training watched, as `DataSet.monitored` chooses it."""
        return "val" if "val" in self.manifest["data"]["images"] else "test"

    @property
    def split(self) -> str | None:
        """The split to judge the run by, as `DataSet.held_out` chooses it; None before it is finished."""
        return next((name for name in ("test", "val") if name in self.evaluations), None)


def read_run(path: Path) -> RunRecord:
    """The run at `path`. Raises UserError where there is none, and where a file of it is damaged."""
    from residuum.evaluation.scores import Evaluation
    from residuum.training.run_folder import RunFolder

    folder = RunFolder(path)
    manifest = folder.read_manifest()
    classes = tuple(manifest["data"].get("classes", ()))
    try:
        found = {name: Evaluation.from_plain(plain) for name, plain in manifest.get("results", {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder.manifest} has results that cannot be read ({error!r}); evaluate the run again"
        ) from None
    answers = _read_answers(folder, classes, {name: name for name in found})
    calibrated = _read_answers(folder, classes, {name: f"{name}{CALIBRATED}" for name in found})
    return RunRecord(path, manifest, tuple(folder.read_metrics()), found, answers, calibrated)


def _read_answers(
    folder: Any, classes: tuple[str, ...], names: Mapping[str, str]
) -> "dict[str, Answers | LabelAnswers]":
    from residuum.evaluation.answers import read_answers

    files = {split: folder.predictions(name) for split, name in names.items()}
    return {split: read_answers(file, classes) for split, file in files.items() if file.exists()}
