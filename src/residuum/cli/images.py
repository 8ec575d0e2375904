"""Images of a data set to look at: a contact sheet, and single files to try a model on."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage
from residuum.files import whole_file

if TYPE_CHECKING:
    from residuum.data.sources import DataSet
    from residuum.data.splits import Split

MOST_CLASSES = 50
PER_CLASS = 12


def write_sheet(dataset: "DataSet", path: Path) -> None:
    """A picture with a row of images for each class (the first 50), evenly spaced over the largest split."""
    from residuum.report.pictures import contact_sheet

    split = max(dataset.splits.values(), key=len)
    names = dataset.classes[:MOST_CLASSES]
    rows = [(name, images_of(split, index, PER_CLASS)) for index, name in enumerate(names)]
    with whole_file(path) as temporary:
        contact_sheet(rows, temporary)


def write_samples(dataset: "DataSet", folder: Path) -> list[Path]:
    """One PNG of each class (the first 50) from the held-out split, named by number and class."""
    from PIL import Image

    _, split = dataset.held_out()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, name in enumerate(dataset.classes[:MOST_CLASSES]):
        safe_name = re.sub(r"[^\w-]+", "_", name)[:50]
        for image in images_of(split, index, 1):
            written.append(folder / f"{index:02d}_{safe_name}.png")
            Image.fromarray(image).save(written[-1])
    return written


def images_of(split: "Split", class_index: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Up to `count` images of a class as (H, W, 3), evenly spaced; unreadable ones are skipped."""
    labels = split.labels
    chosen = np.flatnonzero(labels == class_index if labels.ndim == 1 else labels[:, class_index])
    spaced = chosen if len(chosen) <= count else chosen[np.arange(count) * len(chosen) // count]
    for index in spaced.tolist():
        try:
            yield split.read(index, 3)
        except BadImage:
            continue
