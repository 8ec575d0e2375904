"""What a model's files say of it, for people: on what it was trained, how, and how well it did."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from residuum.errors import UserError
from residuum.files import read_json

Card = dict[str, str]
"""Names and values, in the order to be shown."""

_FIGURES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_average_precision": "mean average precision",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
}
_LONGEST = 200


def card_of(path: Path, provenance: Mapping[str, Any], checks: Mapping[str, Any]) -> Card:
    """The facts of a model at `path`: its provenance, its run's figures where the run is there, an export's checks."""
    scores = provenance.get("scores")
    figures = _figures(path) or {f"{split} score": value for split, value in _items(scores)}
    facts: dict[str, Any] = {
        "data": _without_folders(provenance.get("data")),
        "recipe": provenance.get("recipe"),
        "seed": provenance.get("seed"),
        **figures,
        "trained with PyTorch": dict(_items(provenance.get("versions"))).get("torch"),
        **{f"export: {name}": value for name, value in checks.items() if isinstance(value, (str, int, float))},
    }
    return {name: _shown(value) for name, value in facts.items() if value is not None}


def _figures(path: Path) -> Card:
    """Of a run: each split's figures with their intervals, the protocol named."""
    for folder in (path, path.parent):
        if (folder / "run.json").is_file():
            try:
                return _of_results(dict(_items(read_json(folder / "run.json"))).get("results"))
            except UserError:  # the model is sound without it
                return {}
    return {}


def _of_results(results: Any) -> Card:
    found: Card = {}
    for split, result in _items(results):
        facts = dict(_items(result))
        if "protocol" in facts:
            found[f"{split} protocol"] = f"{facts['protocol']}, {facts.get('images')} images"
        for key, name in _FIGURES.items():
            measured = dict(_items(facts.get(key)))
            if isinstance(measured.get("value"), (int, float)):
                found[f"{split} {name}"] = _with_interval(measured)
    return found


def _with_interval(measured: Mapping[str, Any]) -> str:
    text = f"{measured['value']:.2f} {measured.get('unit', '')}".strip()
    low, high = measured.get("low"), measured.get("high")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return f"{text} (95 % interval {low:.2f} to {high:.2f})"
    return text


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(key), item) for key, item in value.items()] if isinstance(value, Mapping) else []


def _without_folders(data: Any) -> Any:
    """A data set's name; of a path its last part: where things lie on the machine is nobody's business."""
    return PurePath(data).name if isinstance(data, str) and PurePath(data).is_absolute() else data


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:_LONGEST]
