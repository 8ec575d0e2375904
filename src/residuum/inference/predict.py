"""Prediction on files: in the order given, in bounded memory, decoding while the network computes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage, decode
from residuum.data.preprocessing import Preprocessing
from residuum.data.reading import read_ahead
from residuum.errors import UserError
from residuum.inference.deployed import Deployed, Features, Probabilities, Views, by_pytorch
from residuum.processor import cores

if TYPE_CHECKING:
    from residuum.weights import Classifier

View = NDArray[np.uint8]  # (S, S, C)
_Decoded = tuple[Path, View | BadImage]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one file, best first; or, when it could not be read, why.

    features: where they were asked for, the vector (D,) float32 that the classifier read.
    """

    path: Path
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    features: Features | None = field(default=None, compare=False)


def predict(
    model: "Classifier | Deployed",
    paths: Iterable[Path],
    *,
    top: int = 5,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    features: bool = False,
) -> Iterator[Prediction]:
    """Classify files, one Prediction each, in their order. The files are read as the result is consumed.

    Probabilities are the softmax over the classes, or each class's sigmoid for multi-label. Two batches of
    images are held at a time, however many files there are; `workers` threads decode. A file that cannot be
    read is no error but a Prediction that says so. Raises UserError for a device that cannot be had, and for
    `features` of a model that was exported without them.
    """
    if top < 1 or batch_size < 1:
        raise UserError(f"top is {top} and batch_size {batch_size}; both are at least 1")
    deployed = model if isinstance(model, Deployed) else _by_pytorch(model, device, precision)
    if features and deployed.with_features is None:
        raise UserError(f"{deployed.architecture} was exported without features; name the run, or export it again")
    threads = max(1, min(16, cores() - 1) if workers is None else workers)
    decoded = _decode_ahead(paths, deployed.preprocessing, threads, ahead=batch_size + threads)

    def predictions() -> Iterator[Prediction]:
        while batch := list(islice(decoded, batch_size)):
            yield from _classify(batch, deployed, top, features)

    return predictions()


def _by_pytorch(classifier: "Classifier", device: str, precision: str) -> Deployed:
    from residuum.hardware import choose_device

    return by_pytorch(classifier, choose_device(device), precision)


def _decode_ahead(paths: Iterable[Path], preprocessing: Preprocessing, threads: int, ahead: int) -> Iterator[_Decoded]:
    """Each file's view, in order."""

    def read(path: Path) -> View | BadImage:
        try:
            return preprocessing.view(decode(path, str(path), preprocessing.channels))
        except BadImage as bad:
            return bad

    return read_ahead(paths, read, threads=threads, ahead=ahead)


def _classify(batch: Sequence[_Decoded], deployed: Deployed, top: int, features: bool) -> Iterator[Prediction]:
    """The `top` most probable classes of each file, best first; of equals the lower index first."""
    views = [view for _, view in batch if not isinstance(view, BadImage)]
    if views:
        shares_NK, features_ND = _answers(np.stack(views), deployed, features)
        indices = np.argsort(-shares_NK, axis=1, kind="stable")[:, :top]
        shares = np.take_along_axis(shares_NK, indices, axis=1)
        ranked = zip(indices.tolist(), shares.tolist(), features_ND, strict=True)
    for path, view in batch:
        if isinstance(view, BadImage):
            yield Prediction(path, error=view.reason)
        else:
            best, probabilities, own = next(ranked)
            yield Prediction(path, tuple(deployed.classes[index] for index in best), tuple(probabilities), None, own)


def _answers(
    views: Views, deployed: Deployed, features: bool
) -> tuple[Probabilities, Sequence[Features | None] | Features]:
    """The probabilities (N, K) and, where asked for, the features (N, D)."""
    if not features:
        return deployed.probabilities(views), [None] * len(views)
    assert deployed.with_features is not None
    return deployed.with_features(views)
