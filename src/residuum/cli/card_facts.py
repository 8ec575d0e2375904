"""What a model card is about: the model, and the run that made it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from residuum.cli.run_records import RunRecord, read_run

if TYPE_CHECKING:
    from residuum.evaluation.scores import Evaluation
    from residuum.weights import Classifier


@dataclass(frozen=True)
class CardFacts:
    """record: the run; None where it is not at hand. is_final: the weights are those that the run measured."""

    name: str
    classifier: "Classifier"
    record: RunRecord | None
    is_final: bool

    @property
    def evaluations(self) -> "Mapping[str, Evaluation]":
        """What these weights scored, by split; the first is the one to judge them by."""
        if self.record is None or not self.is_final:
            return {}
        first = self.record.split
        return dict(sorted(self.record.evaluations.items(), key=lambda item: item[0] != first))

    @property
    def timm_name(self) -> str | None:
        """What timm calls the network; None where it does not have it."""
        from residuum.weights import timm_name

        return timm_name(self.classifier.architecture, self.classifier.model_args)

    @property
    def is_alike_elsewhere(self) -> bool:
        """Whether timm and transformers show images to the network as training did."""
        return self.timm_name is not None and self.classifier.preprocessing.mean_image is None

    @property
    def data(self) -> str:
        """The data's name."""
        from residuum.model_config import public_name

        return public_name(str(self.classifier.provenance.get("data", "data that are not named")))


def facts_of(path: Path, classifier: "Classifier", name: str) -> CardFacts:
    """The model at `path`, a run or a folder of a model, with the run that it lies in."""
    run = path.parent if path.resolve().name in ("model", "best") else path
    record = read_run(run) if (run / "run.json").is_file() else None
    return CardFacts(
        re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model",
        classifier,
        record,
        is_final=path.resolve().name != "best",
    )
