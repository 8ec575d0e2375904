"""Several views of each image from one decode: what ten crops, many scales and ensembles are evaluated on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from residuum.data.decoding import BadImage
from residuum.data.loaders import Batch
from residuum.data.reading import read_ahead
from residuum.data.splits import Split
from residuum.distributed import World
from residuum.hardware import upload

Views = tuple[NDArray[np.uint8], ...]
"""What is seen of one image: (H, W, C) uint8 each, of any sizes."""


_TOGETHER = 16  # images that a thread reads before it hands them over, which takes as long as reading a small one


class ViewMaker(Protocol):
    """Makes the views of one image, decoded to `channels` channels."""

    @property
    def channels(self) -> int: ...

    def __call__(self, image: NDArray[np.uint8]) -> Views: ...


@dataclass(frozen=True)
class ViewLoader:
    """Batches in the split's order, each image exactly once over all processes, of the views that `makers` make.

    A batch's `images` holds one list a maker, with the views of each image. Images are decoded once (twice where some
    makers want colours and some grey), by `threads` threads, some more than a batch ahead, or, with 0, when they are
    asked for. Process r of n gets the samples r, r + n, ... Bad files are reported in their batches.
    """

    split: Split
    makers: Sequence[ViewMaker]
    batch_size: int
    threads: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world: World = field(default_factory=World)

    def epoch(self, epoch: int) -> Iterator[Batch[list[list[Views]]]]:
        """The batches; no epoch differs from another."""
        mine = range(self.world.rank, len(self.split), self.world.size)
        shares = [mine[start : start + _TOGETHER] for start in range(0, len(mine), _TOGETHER)]
        seen = chain.from_iterable(self._shares(shares))
        while read := list(islice(seen, self.batch_size)):
            yield self._batch(read)

    def _shares(self, shares: Sequence[range]) -> Iterator[list[tuple[int, list[Views] | BadImage]]]:
        def read(share: range) -> list[tuple[int, list[Views] | BadImage]]:
            return [(index, self._views(index)) for index in share]

        if not self.threads:
            return map(read, shares)
        ahead = max(1, self.batch_size // _TOGETHER) + self.threads
        return (found for _, found in read_ahead(shares, read, threads=self.threads, ahead=ahead))

    def _views(self, index: int) -> list[Views] | BadImage:
        try:
            images = {channels: self.split.read(index, channels) for channels in {m.channels for m in self.makers}}
        except BadImage as bad:
            return bad
        return [maker(images[maker.channels]) for maker in self.makers]

    def _batch(self, read: Sequence[tuple[int, list[Views] | BadImage]]) -> Batch[list[list[Views]]]:
        good = [(index, views) for index, views in read if not isinstance(views, BadImage)]
        bad = [(index, error) for index, error in read if isinstance(error, BadImage)]
        indices = np.array([index for index, _ in good], dtype=np.int64)
        labels = torch.from_numpy(self.split.labels[indices])
        return Batch(
            images=[[views[number] for _, views in good] for number in range(len(self.makers))],
            labels=upload(labels.long() if labels.ndim == 1 else labels.float(), self.device),
            indices=indices,
            bad=tuple(error for _, error in bad),
            bad_indices=np.array([index for index, _ in bad], dtype=np.int64),
        )
