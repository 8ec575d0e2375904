"""The few facts about a data set that choose a network, a view and a loader."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from residuum.data.decoding import GREY_MODES, BadImage, ImageFacts
from residuum.data.splits import Split
from residuum.errors import UserError

PROBES = 1_000


@dataclass(frozen=True)
class DataFacts:
    """Counts, 1 or 3 channels (1 where all is grey), median height and width in pixels."""

    images: int
    classes: int
    channels: int
    height: int
    width: int
    multi_label: bool


def data_facts(split: Split, classes: Sequence[str], multi_label: bool) -> DataFacts:
    """The facts of a split, from the headers of at most 1,000 evenly spaced images.

    Raises UserError when none of them can be read.
    """
    every = np.linspace(0, len(split) - 1, min(len(split), PROBES)).round().astype(int)
    probed: list[ImageFacts] = []
    problems: list[BadImage] = []
    for index in every.tolist():
        try:
            probed.append(split.probe(index))
        except BadImage as bad:
            problems.append(bad)
    if not probed:
        raise UserError(f"none of the images can be read; the first is {problems[0]}")
    return DataFacts(
        images=len(split),
        classes=len(classes),
        channels=1 if all(facts.mode in GREY_MODES for facts in probed) else 3,
        height=int(np.median([facts.height for facts in probed])),
        width=int(np.median([facts.width for facts in probed])),
        multi_label=multi_label,
    )
