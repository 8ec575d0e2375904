"""The same images for both sides: some of a data set, and as the plain arrays that the peers' scripts read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from residuum.data.sources import DataSet, open_data
from residuum.data.splits import Split, SubSplit

HELD_OUT = 100
"""Images that a run is evaluated on where only its training is measured."""


def open_sample(data: str, images: int | None, held_out: int | None = HELD_OUT) -> DataSet:
    """At most so many images of the training and of each other split, evenly spaced so that all classes stay.

    None takes all. Of a folder with nothing but train/ in it, all images train, and some of them are the held-out ones.
    """
    folder = Path(data) / "train"
    only_training = folder.is_dir() and [part.name for part in Path(data).iterdir() if part.is_dir()] == ["train"]
    dataset = open_data(str(folder) if only_training else data)
    if only_training:
        whole = dataset.held_out("all")[1]
        dataset = replace(dataset, splits={"train": whole, "val": whole})
    limits = {name: images if name == "train" else held_out for name in dataset.splits}
    return replace(dataset, splits={name: some(split, limits[name]) for name, split in dataset.splits.items()})


def class_folder(data: str) -> Path:
    """The folder that holds a folder of training images for each class."""
    train = Path(data) / "train"
    return train if train.is_dir() else Path(data)


def some(split: Split, count: int | None) -> Split:
    """At most `count` images of the split, evenly spaced."""
    if count is None or count >= len(split):
        return split
    return SubSplit(split, np.arange(count) * len(split) // count)


def write_arrays(dataset: DataSet, folder: Path, channels: int) -> None:
    """`train_images.npy` (N, H, W[, 3]) uint8 and `train_labels.npy` (N,) int64, and the same of what is held out."""
    for name, split in {"train": dataset.train, "test": dataset.held_out()[1]}.items():
        images = np.stack([split.read(index, channels) for index in range(len(split))])
        np.save(folder / f"{name}_images.npy", images[..., 0] if channels == 1 else images)
        np.save(folder / f"{name}_labels.npy", np.asarray(split.labels, np.int64))
