"""A trained model, of PyTorch or exported, as a function from images to logits, wherever it is put to work."""

from pathlib import Path

import torch
from torch import Tensor

from residuum.errors import UserError
from residuum.evaluation.evaluate import predictor
from residuum.evaluation.views import Predict
from residuum.hardware import choose_precision
from residuum.inference.engines import Engine, open_engine
from residuum.inference.exported import Exported, export_folder, read_exported
from residuum.weights import Classifier, load

Model = Classifier | Exported
"""What can be measured: a network, or a file that an engine computes, each with all that its use needs."""


def open_model(path: str | Path) -> Model:
    """The model at `path`: a run's as by `load`, or an exported one. Raises UserError where there is none."""
    folder = export_folder(Path(path))
    return load(path) if folder is None else read_exported(folder)


def model_predictor(
    model: Model,
    device: torch.device,
    precision: str = "auto",
    classes: tuple[str, ...] | None = None,
    engine: str | Engine = "auto",
) -> Predict:
    """The model's predict function on `device`, its temperature applied, its scores in the order of `classes`.

    precision: of PyTorch; "auto" is that of its training, so that the number which training printed is found again. An
    exported model computes on the CPU, in its own number, by the `engine` of that name, or already open. Raises
    UserError where names of classes stand twice and the order is another, and for an engine that cannot be had.
    """
    predict = _by_engine(model, engine) if isinstance(model, Exported) else _by_pytorch(model, device, precision)
    if classes is None or classes == model.classes:
        return predict
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(
            f"two classes are called {twice!r}, and the order is not the model's; give them names of their own"
        )
    order = [model.classes.index(name) for name in classes]
    return lambda images: predict(images)[:, order]


def _by_pytorch(classifier: Classifier, device: torch.device, precision: str) -> Predict:
    if precision == "auto":
        precision = classifier.provenance.get("precision", "auto")
    return predictor(classifier.network, device, choose_precision(precision, device), classifier.temperature)


def _by_engine(exported: Exported, engine: str | Engine) -> Predict:
    compute = open_engine(exported, engine) if isinstance(engine, str) else engine

    def predict(images: Tensor) -> Tensor:
        logits = exported.tempered(compute(images.cpu().contiguous().numpy()))
        return torch.from_numpy(logits).to(images.device)

    return predict
