"""Prediction on files: in the order given, in bounded memory, decoding while the network computes."""

import csv
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage, decode
from residuum.data.preprocessing import Preprocessing
from residuum.data.reading import read_ahead
from residuum.data.sources.folders import IMAGE_SUFFIXES
from residuum.errors import UserError
from residuum.inference.deployed import Deployed, Probabilities, Views, by_pytorch
from residuum.processor import cores

if TYPE_CHECKING:
    from residuum.weights import Classifier

View = NDArray[np.uint8]  # (S, S, C)
_Decoded = tuple[Path, View | BadImage]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one file, best first; or, when it could not be read, why."""

    path: Path
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None


def predict(
    model: "Classifier | Deployed",
    paths: Iterable[Path],
    *,
    top: int = 5,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Iterator[Prediction]:
    """Classify files, one Prediction each, in their order. The files are read as the result is consumed.

    Probabilities are the softmax over the classes, or each class's sigmoid for multi-label. Two batches of
    images are held at a time, however many files there are; `workers` threads decode. A file that cannot be
    read is no error but a Prediction that says so. Raises UserError for a device that cannot be had.
    """
    if top < 1 or batch_size < 1:
        raise UserError(f"top is {top} and batch_size {batch_size}; both are at least 1")
    deployed = model if isinstance(model, Deployed) else _by_pytorch(model, device, precision)
    threads = max(1, min(16, cores() - 1) if workers is None else workers)
    decoded = _decode_ahead(paths, deployed.preprocessing, threads, ahead=batch_size + threads)

    def predictions() -> Iterator[Prediction]:
        while batch := list(islice(decoded, batch_size)):
            yield from _classify(batch, deployed.probabilities, deployed.classes, top)

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


def _classify(
    batch: Sequence[_Decoded],
    probabilities: Callable[[Views], Probabilities],
    classes: Sequence[str],
    top: int,
) -> Iterator[Prediction]:
    """The `top` most probable classes of each file, best first; of equals the lower index first."""
    views = [view for _, view in batch if not isinstance(view, BadImage)]
    if views:
        shares_NK = probabilities(np.stack(views))
        indices = np.argsort(-shares_NK, axis=1, kind="stable")[:, :top]
        ranked = zip(indices.tolist(), np.take_along_axis(shares_NK, indices, axis=1).tolist(), strict=True)
    for path, view in batch:
        if isinstance(view, BadImage):
            yield Prediction(path, error=view.reason)
        else:
            best, shares = next(ranked)
            yield Prediction(path, tuple(classes[index] for index in best), tuple(shares))


def expand_paths(patterns: Sequence[str | Path]) -> Iterator[Path]:
    """The files that `patterns` stand for, in their order: files, folders (all images below), glob patterns.

    They are found as they are asked for. Raises UserError at once for one that stands for no file.
    """
    for pattern in patterns:
        if next(_expand(str(pattern)), None) is None:
            raise UserError(_nothing_found(str(pattern)))
    return chain.from_iterable(_expand(str(pattern)) for pattern in patterns)


def _expand(pattern: str) -> Iterator[Path]:
    if os.path.lexists(pattern):
        yield from _images_below(pattern) if os.path.isdir(pattern) else [Path(pattern)]
        return
    deep = "**" in pattern  # which matches the folders and, apart, all that is in them
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(name):
            if not deep or _is_image_name(os.path.basename(name)):
                yield Path(name)
        elif not deep:
            yield from _images_below(name)


def _images_below(folder: str) -> Iterator[Path]:
    visited = set()  # links are followed, and may form a loop
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(parent, name) for name in sorted(files) if _is_image_name(name))


def _is_image_name(name: str) -> bool:
    return name[0] != "." and name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _nothing_found(pattern: str) -> str:
    if os.path.isdir(pattern):
        return f"{pattern} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); name another folder"
    if glob.has_magic(pattern):
        return f"nothing matches {pattern}; name files, folders or another pattern"
    return f"{pattern} does not exist; name files, folders or a pattern such as 'photos/*.jpg'"


def write_jsonl(predictions: Iterable[Prediction], stream: TextIO) -> None:
    """One JSON object a line: `file`, `predictions` (each `label`, `probability`), `error` (or null)."""
    for prediction in predictions:
        pairs = zip(prediction.labels, prediction.probabilities, strict=True)
        record = {
            "file": str(prediction.path),
            "predictions": [{"label": label, "probability": probability} for label, probability in pairs],
            "error": prediction.error,
        }
        stream.write(json.dumps(record) + "\n")


def write_csv(predictions: Iterable[Prediction], stream: TextIO, *, top: int) -> None:
    """A header and one row a file: `file,label,probability`, `label_2,probability_2` … to `top`, `error`."""
    writer = csv.writer(stream, lineterminator="\n")
    later = chain.from_iterable((f"label_{rank}", f"probability_{rank}") for rank in range(2, top + 1))
    writer.writerow(("file", "label", "probability", *later, "error"))
    for prediction in predictions:
        pairs = zip(prediction.labels, prediction.probabilities, strict=True)
        cells = [cell for label, probability in pairs for cell in (label, f"{probability:.6g}")]
        blank = [""] * (2 * top - len(cells))
        name = os.fsencode(prediction.path).decode("utf-8", "backslashreplace").replace("\r", "\\r")
        writer.writerow((name, *cells, *blank, prediction.error or ""))
