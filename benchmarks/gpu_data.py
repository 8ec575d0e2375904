"""The images of the GPU benchmark, decoded once: CIFAR-10 and Fashion-MNIST where they are given, random ones else."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from residuum.data.sources import DataSet, open_data
from residuum.data.splits import ArraySplit, NumberedNames, Split


def read_arrays(spec: str) -> DataSet:
    """The data set `spec` with every image decoded; `spec` as `open_data` takes it, or an .npz of `write_arrays`.

    Images of more than one size raise ValueError.
    """
    if spec.endswith(".npz"):
        return _read_npz(Path(spec))
    found = open_data(spec)
    splits = {name: (_decoded(split), split.labels) for name, split in found.splits.items()}
    return data_set(Path(spec).name, found.classes, splits)


def write_arrays(dataset: DataSet, path: Path) -> None:
    """Keep a data set of arrays in an .npz: SPLIT_images (N, H, W, C) uint8, SPLIT_labels (N,) int64, classes."""
    arrays: dict[str, NDArray[np.generic]] = {"classes": np.array(dataset.classes)}
    for name, split in dataset.splits.items():
        assert isinstance(split, ArraySplit)
        arrays |= {f"{name}_images": split.images, f"{name}_labels": split.labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def random_images(train: int, test: int, side: int, channels: int = 3, classes: int = 10) -> DataSet:
    """Noise: as long to train on as photographs of that size, and nothing to learn."""
    numbers = np.random.default_rng(0)
    splits = {}
    for name, count in {"train": train, "test": test}.items():
        images = numbers.integers(0, 256, (count, side, side, channels), np.uint8)
        splits[name] = (images, np.arange(count, dtype=np.int64) % classes)
    return data_set("random", tuple(f"class {number}" for number in range(classes)), splits)


def first_images(dataset: DataSet, count: int) -> DataSet:
    """At most `count` images a split, evenly spaced so that all classes stay."""
    splits = {}
    for name, split in dataset.splits.items():
        assert isinstance(split, ArraySplit)
        kept = np.arange(min(count, len(split))) * len(split) // min(count, len(split))
        splits[name] = (split.images[kept], split.labels[kept])
    return data_set(dataset.spec, dataset.classes, splits)


def data_set(
    spec: str, classes: tuple[str, ...], splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
) -> DataSet:
    """A data set of decoded images: by split, (N, H, W, C) uint8 and (N,) labels. `spec` names it, no image."""
    made: dict[str, Split] = {
        name: ArraySplit(images, labels, NumberedNames(name, len(labels))) for name, (images, labels) in splits.items()
    }
    return DataSet(spec, classes, made, multi_label=False)


def _decoded(split: Split) -> NDArray[np.uint8]:
    channels = 1 if split.probe(0).mode == "L" else 3
    with ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(lambda index: split.read(index, channels), range(len(split)))))


def _read_npz(path: Path) -> DataSet:
    with np.load(path) as arrays:
        classes = tuple(str(name) for name in arrays["classes"])
        names = [key.removesuffix("_images") for key in arrays.files if key.endswith("_images")]
        splits = {name: (arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in names}
    return data_set(path.stem, classes, splits)
