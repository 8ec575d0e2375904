"""A fair, seeded part of a data set, for studies that cannot afford all of it."""

from dataclasses import replace

import numpy as np

from residuum.data.sources import DataSet
from residuum.data.sources.assembly import stratified_draw
from residuum.data.splits import Split, SubSplit
from residuum.errors import UserError

_SEED = 0  # of the draw: the same images for every seed of a run


def draw(dataset: DataSet, train_images: int | None, test_images: int | None) -> DataSet:
    """The data set with about so many training images, and of every other split so many; None: all.

    Each class keeps its share. A split that has no more than asked for stays whole. Raises UserError for several
    labels an image, which have no classes to keep the shares of.
    """
    if dataset.multi_label:
        raise UserError(f"{dataset.spec} has several labels an image; studies are of one label, take other data")
    wanted = {name: train_images if name == "train" else test_images for name in dataset.splits}
    splits = {name: _part(split, wanted[name]) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits)


def _part(split: Split, images: int | None) -> Split:
    if images is None or images >= len(split):
        return split
    return SubSplit(split, np.flatnonzero(stratified_draw(split.labels, images / len(split), _SEED)))
