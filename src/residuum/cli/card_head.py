"""The metadata of a model card: what the Hub files a model under."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from residuum.cli.card_facts import CardFacts
from residuum.records import Measurement
from residuum.report.markdown import metadata

if TYPE_CHECKING:
    from residuum.evaluation.scores import Evaluation

_ON_THE_HUB = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
_KNOWN = ("accuracy", "f1")  # to the Hub, as metrics
_TASK = "image-classification"
_REMARK = "license: say here under which license others may use the model, such as apache-2.0"


def head(facts: CardFacts) -> str:
    """The YAML at the top of the card. The license is left to the owner."""
    elsewhere = ["timm", "transformers"] if facts.timm_name else []
    origin = _origin(facts)
    data_set = _data_set(facts)
    results = list(_results(facts))
    metrics = dict.fromkeys(one["type"] for result in results for one in result["metrics"] if one["type"] in _KNOWN)
    return metadata(
        {
            "pipeline_tag": _TASK,
            "library_name": "timm" if facts.is_alike_elsewhere and not facts.classifier.multi_label else "residuum",
            "tags": [_TASK, *elsewhere, "residuum"],
            **({"datasets": [data_set]} if data_set else {}),
            **({"base_model": origin} if origin else {}),
            **({"metrics": [*metrics]} if metrics else {}),
            **({"model-index": [{"name": facts.name, "results": results}]} if results else {}),
        },
        _REMARK,
    )


def _data_set(facts: CardFacts) -> str | None:
    """What the Hub calls the data, where it has them."""
    place = str(facts.classifier.provenance.get("data"))  # a folder may be called as a data set is
    named = re.fullmatch(r"hf:([^/]+/[^/]+)(/.*)?", place)
    return named[1] if named else _ON_THE_HUB.get(place)


def _origin(facts: CardFacts) -> str | None:
    """The model on the Hub that training started from."""
    weights = facts.record.manifest["run"]["model"].get("weights") if facts.record else None
    return weights[3:].partition("@")[0] if weights and weights.startswith("hf:") else None


def _results(facts: CardFacts) -> Iterator[dict[str, Any]]:
    data_set = {"name": facts.data, "type": _data_set(facts) or facts.data}
    for split, evaluation in facts.evaluations.items():
        figures = _figures(evaluation, has_temperature=facts.classifier.temperature != 1)
        metrics = [_metric(kind, name, found) for kind, name, found in figures if found is not None]
        yield {
            "task": {"type": _TASK, "name": "Image Classification"},
            "dataset": {**data_set, "split": split},
            "metrics": metrics,
        }


def _figures(evaluation: "Evaluation", has_temperature: bool) -> Iterator[tuple[str, str, Measurement | None]]:
    """Those that hold of the model as it is; what the probabilities were worth a temperature has changed."""
    yield "accuracy", "top-1 accuracy", evaluation.top1
    yield "accuracy", "top-5 accuracy", evaluation.informative_top5
    yield "mean_average_precision", "mean average precision", evaluation.mean_average_precision
    yield "f1", "macro F1", evaluation.macro_f1
    if not has_temperature:
        yield "expected_calibration_error", "calibration error", evaluation.calibration_error


def _metric(kind: str, name: str, measured: Measurement) -> dict[str, Any]:
    """Shares of one, as the Hub has them, and the interval in the name, as it has no field for that."""
    if measured.low is not None and measured.high is not None:
        name += f" (95 % interval {measured.low / 100:.4f} to {measured.high / 100:.4f})"
    return {"type": kind, "value": round(measured.value / 100, 6), "name": name}
