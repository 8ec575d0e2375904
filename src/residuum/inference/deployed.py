"""A trained model at work: views of images to probabilities, whichever engine computes them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.data.preprocessing import Preprocessing
from residuum.errors import torch_needed
from residuum.inference.engines import Engine, open_engine, refuse_choice, refuse_engine
from residuum.inference.exported import Exported, export_folder, read_exported

if TYPE_CHECKING:
    import torch

    from residuum.weights import Classifier

Views = NDArray[np.uint8]  # (N, S, S, C)
Probabilities = NDArray[np.float32]  # (N, K)
Features = NDArray[np.float32]  # (N, D)


@dataclass(frozen=True)
class Deployed:
    """What it takes to put a model to work.

    engine: what computes, in words; classes name the outputs in order; probabilities: of views (N, S, S, C) uint8, as
    `preprocessing.view` makes them, (N, K) float32: the softmax, or each class's sigmoid where it is multi_label.
    with_features: these, and what the classifier read to find them, (N, D) float32; None where that cannot be had.
    """

    architecture: str
    engine: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    multi_label: bool
    probabilities: Callable[[Views], Probabilities]
    with_features: Callable[[Views], tuple[Probabilities, Features]] | None = None


def deploy(path: str | Path, *, engine: str = "auto", device: str = "auto", precision: str = "auto") -> Deployed:
    """The model at `path` put to work: an exported one by an engine that is here, a run's by PyTorch.

    engine: "auto", or one of `ENGINES`; device and precision are PyTorch's. Raises UserError where there is no such
    model, engine or device, for another device or number than an export's own, and for a run without PyTorch.
    """
    folder = export_folder(Path(path))
    if folder is not None:
        refuse_choice(str(path), device, precision)
        return by_engine(read_exported(folder), engine)
    refuse_engine(path, engine)
    with torch_needed(f"{path}, which is no export,"):
        from residuum.distributed import world_from_environment
    from residuum.hardware import choose_device
    from residuum.weights import load

    return by_pytorch(load(path), choose_device(device, world_from_environment().local_rank), precision)


def by_engine(exported: Exported, engine: str | Engine = "auto") -> Deployed:
    """The exported model computed by an engine that is installed, or already open."""
    run = open_engine(exported, engine) if isinstance(engine, str) else engine
    handling, find = exported.preprocessing, run.features

    def shares(logits: NDArray[np.float32]) -> Probabilities:
        tempered = exported.tempered(logits)
        return sigmoid(tempered) if exported.multi_label else softmax(tempered)

    def probabilities(views: Views) -> Probabilities:
        return shares(run(handling.normalise_views(views)))

    def with_features(views: Views) -> tuple[Probabilities, Features]:
        assert find is not None
        logits, features_NFhw = find(handling.normalise_views(views))
        return shares(logits), features_NFhw.mean(axis=(2, 3))

    return Deployed(
        exported.architecture,
        run.words,
        exported.classes,
        handling,
        exported.multi_label,
        probabilities,
        None if find is None else with_features,
    )


def softmax(logits: NDArray[np.float32]) -> Probabilities:
    """Over the classes: (N, K) to (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[np.float32]) -> Probabilities:
    """Of each output on its own, where no exponential overflows."""
    shares: Probabilities = np.exp(-np.logaddexp(np.float32(0), -logits))
    return shares


def by_pytorch(classifier: "Classifier", device: "torch.device", precision: str = "auto") -> Deployed:
    """The model computed by PyTorch on `device`. Raises UserError for a precision that does not exist."""
    import torch

    from residuum.inference.features import head_rows, watched_head
    from residuum.inference.predictors import model_predictor

    network, handling = model_predictor(classifier, device, precision), classifier.preprocessing

    def probabilities(views: Views) -> Probabilities:
        images = torch.from_numpy(views).to(device).permute(0, 3, 1, 2)
        logits = network(handling.normalise(images)).cpu()
        found: Probabilities = (logits.sigmoid() if classifier.multi_label else logits.softmax(dim=1)).numpy()
        return found

    def with_features(views: Views) -> tuple[Probabilities, Features]:
        with watched_head(classifier.network) as caught:
            found = probabilities(views)
        return found, head_rows(caught.pop()).cpu().numpy()

    return Deployed(
        classifier.architecture,
        f"PyTorch {torch.__version__.partition('+')[0]} on {device}",
        classifier.classes,
        handling,
        classifier.multi_label,
        probabilities,
        with_features,
    )
