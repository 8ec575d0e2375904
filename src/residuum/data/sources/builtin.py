"""The data sets that are known by name, read from their original files."""

import gzip
import math
import os
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residuum.data.sources.assembly import Found, Reading, stratified_draw
from residuum.data.splits import ArraySplit, ChosenNames, Labels, NumberedNames
from residuum.errors import UserError

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_IDX_FILES = {  # split -> images and labels
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IDX_UNSIGNED_BYTES = 8  # the code of this type in an IDX header
_MOST_IDX_BYTES = 2**31  # forty times MNIST; memory is set aside for what a header promises


def default_root() -> Path:
    """Where downloads go: $RESIDUUM_DATA, else ~/.cache/residuum."""
    return Path(os.environ.get("RESIDUUM_DATA") or Path.home() / ".cache" / "residuum")


def read_digits(root: Path | None) -> Reading:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey; a fixed fifth of each class is the test split."""
    table = _digits_table()
    images = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1]
    names = NumberedNames("digits", len(labels))
    in_test = stratified_draw(labels, 0.2, seed=0)
    splits = {}
    for split, chosen in (("train", np.flatnonzero(~in_test)), ("test", np.flatnonzero(in_test))):
        part = ArraySplit(images[chosen], labels[chosen], ChosenNames(names, chosen))
        splits[split] = Found(part, DIGITS)
    return Reading(splits)


def _digits_table() -> NDArray[np.int64]:
    """(1797, 65): 64 pixels of 0 to 16 and the class, in a file that scikit-learn brings; its import takes a second."""
    try:
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        with gzip.open(str(file), "rt") as stream:
            return np.loadtxt(stream, np.int64, delimiter=",")
    except (PackageNotFoundError, OSError):  # it lies somewhere else, which scikit-learn knows
        from sklearn.datasets import load_digits

        return np.column_stack(load_digits(return_X_y=True)).astype(np.int64)


def read_mnist(root: Path | None) -> Reading:
    """MNIST: 70,000 handwritten digits, 28x28 grey (LeCun et al. 1998)."""
    return _read_idx("mnist", "MNIST", DIGITS, root)


def read_fashion_mnist(root: Path | None) -> Reading:
    """Fashion-MNIST: 70,000 garments, 28x28 grey (Xiao et al. 2017)."""
    return _read_idx("fashion-mnist", "FashionMNIST", GARMENTS, root)


def read_cifar10(root: Path | None) -> Reading:
    """CIFAR-10: 60,000 photographs in 10 classes, 32x32 RGB (Krizhevsky 2009)."""
    return _read_cifar("cifar10", "CIFAR10", root)


def read_cifar100(root: Path | None) -> Reading:
    """CIFAR-100: 60,000 photographs in 100 classes, 32x32 RGB (Krizhevsky 2009)."""
    return _read_cifar("cifar100", "CIFAR100", root)


BUILTIN: dict[str, Callable[[Path | None], Reading]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashion-mnist": read_fashion_mnist,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
}


def _read_idx(name: str, original: str, classes: tuple[str, ...], root: Path | None) -> Reading:
    """The IDX files, gzipped or not, wherever below the root people keep them; else downloaded first."""
    folder = root or default_root()
    places = [folder / original / "raw", folder / original, folder / "raw", folder]
    # The files of mnist and fashion-mnist share their names: in the cache only their own place counts.
    found = _find_idx(places if root else places[:1])
    if not found:
        import torchvision.datasets

        _download(name, folder, partial(getattr(torchvision.datasets, original), folder, download=True))
        found = _find_idx(places[:1])
    splits = {}
    for split, (image_file, label_file) in found.items():
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1).astype(np.int64)
        if len(images) != len(labels) or labels.max(initial=0) >= len(classes):
            raise UserError(f"{label_file} does not fit {image_file}; fetch {name} anew")
        splits[split] = _array_found(name, split, images[..., None], labels, classes)
    absent = [split for split in _IDX_FILES if split not in splits]
    return Reading(splits, tuple(f"{folder} has no {split} files of {name}." for split in absent))


def _find_idx(places: list[Path]) -> dict[str, tuple[Path, Path]]:
    for place in places:
        found = {}
        for split, names in _IDX_FILES.items():
            files = [next((f for f in (place / n, place / f"{n}.gz") if f.is_file()), None) for n in names]
            if files[0] and files[1]:
                found[split] = (files[0], files[1])
        if found:
            return found
    return {}


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (the format of LeCun's MNIST page), gzipped or not. Raises UserError."""
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            zeros, kind, rank = struct.unpack(">HBB", stream.read(4))
            if (zeros, kind, rank) != (0, _IDX_UNSIGNED_BYTES, dimensions):
                raise ValueError(f"not {dimensions}-dimensional bytes")
            shape = struct.unpack(f">{rank}I", stream.read(4 * rank))
            size = math.prod(shape)
            if size > _MOST_IDX_BYTES:
                raise ValueError(f"its header promises {size:,} bytes")
            return np.frombuffer(stream.read(size), np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{file} is not a sound IDX file ({error}); fetch it anew") from error


def _read_cifar(name: str, original: str, root: Path | None) -> Reading:
    """CIFAR's batches are pickles; torchvision opens them only if their MD5 sums are the originals'."""
    import torchvision.datasets

    folder = root or default_root()
    splits = {}
    for split in ("train", "test"):
        load = partial(getattr(torchvision.datasets, original), folder, train=split == "train", download=True)
        data = _download(name, folder, load)
        labels = np.array(data.targets, np.int64)
        splits[split] = _array_found(name, split, np.asarray(data.data), labels, tuple(data.classes))
    return Reading(splits)


def _array_found(name: str, split: str, images: NDArray[np.uint8], labels: Labels, classes: tuple[str, ...]) -> Found:
    return Found(ArraySplit(images, labels, NumberedNames(f"{name}/{split}", len(images))), classes)


def _download(name: str, folder: Path, load: Callable[[], Any]) -> Any:
    """What torchvision loads, fetched first where it is not there. Raises UserError saying how to go on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr):  # torchvision prints its tries, and our output may be read as JSON
            return load()
    except (OSError, RuntimeError) as error:  # no network, space or permission; a file with a wrong MD5 sum
        raise UserError(
            f"{name} is not in {folder} and could not be downloaded ({' '.join(str(error).split())[:100]}); "
            "bring its original files and pass --root FOLDER, or pass a folder of images"
        ) from error
