"""The models that a server holds: opened, tried, and exchanged for new ones without a request being lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, torch_needed, unknown_name
from residuum.inference.deployed import Deployed, by_engine, by_pytorch
from residuum.inference.engines import open_engine, refuse_choice, refuse_engine
from residuum.inference.exported import export_folder, read_exported
from residuum.inference.serve.card import Card, card_of
from residuum.inference.serve.maps import MapMaker, maps_by_features, maps_by_pytorch

_PARTS_OF_RUNS = ("model", "best")


@dataclass(frozen=True)
class Named:
    """A model's name to the clients, and where its files are."""

    name: str
    path: Path


@dataclass(frozen=True)
class How:
    """What computes: an engine for exported models; PyTorch's device and precision for runs."""

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Opened:
    """A model at work, what makes its maps (None: nothing can), and what there is to say of it."""

    deployed: Deployed
    maps: MapMaker | None
    card: Card


def named_models(arguments: Sequence[str]) -> list[Named]:
    """ "runs/digits", "digits=runs/digits/best": each model's name, by default its folder's. Raises UserError."""
    found = [_named(argument) for argument in arguments]
    names = [model.name for model in found]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError(f"two models are called {doubled!r}; name them: first={found[0].path} second=...")
    return found


def _named(argument: str) -> Named:
    name, separator, path = argument.partition("=")
    if separator and name and "/" not in name and not Path(argument).exists():
        return Named(name, Path(path))
    folder = Path(argument).absolute()
    if folder.suffix and folder.is_file():
        folder = folder.parent
    parent = folder.parent if folder.name in _PARTS_OF_RUNS else folder
    return Named(parent.name or "model", Path(argument))


def put_to_work(path: Path, how: How) -> Opened:
    """The model at `path`, tried on an image. Raises UserError where there is none that works, or not in this way."""
    folder = export_folder(path)
    opened = _open_run(path, how) if folder is None else _open_exported(folder, how)
    _try(opened.deployed, path)
    return opened


def _open_exported(folder: Path, how: How) -> Opened:
    refuse_choice(str(folder), how.device, how.precision)
    exported = read_exported(folder)
    engine = open_engine(exported, how.engine)
    maps = None if engine.features is None else maps_by_features(exported, engine.features)
    return Opened(by_engine(exported, engine), maps, card_of(folder, exported.provenance, exported.checks))


def _open_run(path: Path, how: How) -> Opened:
    refuse_engine(path, how.engine)
    with torch_needed(f"{path}, which is no export,"):
        from residuum.hardware import choose_device
    from residuum.weights import load

    classifier, device = load(path), choose_device(how.device)
    deployed = by_pytorch(classifier, device, how.precision)
    return Opened(deployed, maps_by_pytorch(classifier, device), card_of(path, classifier.provenance, {}))


def _try(deployed: Deployed, path: Path) -> None:
    handling = deployed.preprocessing
    for count in (1, 2):
        views = np.full((count, handling.size, handling.size, handling.channels), 128, np.uint8)
        try:
            found = deployed.probabilities(views)
        except Exception as error:  # of any engine
            raise UserError(
                f"{path} cannot compute ({type(error).__name__}: {error}); export or save it again"
            ) from error
        if found.shape != (count, len(deployed.classes)) or not np.isfinite(found).all():
            raise UserError(f"{path} gives no probabilities of its {len(deployed.classes)} classes; save it again")


def facts(name: str, opened: Opened) -> dict[str, Any]:
    """What `GET /models` says of a model."""
    deployed = opened.deployed
    return {
        "name": name,
        "architecture": deployed.architecture,
        "engine": deployed.engine,
        "classes": list(deployed.classes),
        "multi_label": deployed.multi_label,
        "maps": opened.maps is not None,
        "preprocessing": _preprocessing_facts(deployed.preprocessing),
        "card": opened.card,
    }


def _preprocessing_facts(handling: Preprocessing) -> dict[str, Any]:
    """`seen`: of the image's shorter side, how much the middle square is long that the model sees."""
    return {**handling.to_config(), "seen": round(handling.size / handling.resized_side, 4)}


def chosen(name: str | None, models: Mapping[str, Any]) -> str:
    """The name of the model asked for; without one the first. Raises UserError where there is none of the name."""
    if name is None:
        return next(iter(models))
    if name not in models:
        raise unknown_name("model", name[:80], models)
    return name
