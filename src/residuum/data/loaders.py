"""Batches for training and evaluation, from memory or from files alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from residuum.data.augmentations import Augmentation, Augmenter
from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import Indices, Split
from residuum.data.statistics import ChannelStatistics
from residuum.data.storage import FileImages, Images, Kind, MemoryImages, Request, Views, open_images
from residuum.data.workers import LoaderSettings
from residuum.errors import UserError
from residuum.hardware import upload
from residuum.randomness import permutation

_PREPARED_BYTES = 2**27

Seen = TypeVar("Seen")

Order = Callable[[int], list[Indices]]
"""epoch -> the sample indices of each of its batches."""


@dataclass
class Batch(Generic[Seen]):
    """Some samples, ready for the network.

    images: what is seen of them, by a `Loader` float32 (N, C, S, S), normalised, on the device; labels: int64 (N,), or
    float32 (N, K) where samples have several classes or are mixed; indices: int64 (N,), which samples these are; bad
    and bad_indices: what should have been here and could not be read.
    """

    images: Seen
    labels: Tensor
    indices: Indices
    bad: tuple[BadImage, ...]
    bad_indices: Indices


class _Prepared(NamedTuple):
    """Images (N, C, S, S) float32 and their labels on the device, their sample indices, and what could not be read."""

    images: Tensor
    labels: Tensor
    indices: Indices
    bad: dict[int, BadImage]


class Loader:
    """The batches of any epoch, empty where nothing can be read. Made by `train_loader` and `evaluation_loader`."""

    def __init__(
        self,
        images: Images,
        order: Order,
        length: int,
        batch_size: int,
        preprocessing: Preprocessing,
        device: torch.device,
        augment: Augmenter | None = None,
    ) -> None:
        self._images, self._order, self._length = images, order, length
        self._preprocessing, self._device, self._augment = preprocessing, device, augment
        self._at_once = _batches_at_once(images, batch_size, preprocessing, device)
        labels = torch.from_numpy(np.ascontiguousarray(images.split.labels))
        self._labels = labels.long() if labels.ndim == 1 else labels.float()

    def __len__(self) -> int:
        return self._length

    @property
    def split(self) -> Split:
        """What the batches are taken from."""
        return self._images.split

    @property
    def kind(self) -> Kind:
        """Where the images are kept."""
        return self._images.kind

    @property
    def bad(self) -> tuple[BadImage, ...]:
        """What could not be read so far, in the split's order."""
        return tuple(self._images.bad[index] for index in sorted(self._images.bad))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch[Tensor]]:
        """The epoch's batches from number `start` on, the same as after running through those before it.

        Raises UserError when a worker process dies. One iteration at a time.
        """
        order = self._order(epoch)[start:]
        groups = [order[first : first + self._at_once] for first in range(0, len(order), self._at_once)]
        requests = [Request(epoch, np.concatenate(group)) for group in groups]
        number = start
        for group, views in zip(groups, self._images.read(requests), strict=True):
            for part in _split(self._prepared(views, epoch), group):
                yield self._batch(part, epoch, number)
                number += 1

    def _prepared(self, views: Views, epoch: int) -> _Prepared:
        """Everything that is done to each image alone, and its label."""
        images = upload(views.images, self._device)
        labels = upload(self._labels[torch.from_numpy(views.indices)], self._device)
        if self._augment is None or not len(images):
            images = self._preprocessing.normalise(images)
        else:
            images = self._augment.each(images, epoch, views.indices)
        return _Prepared(images, labels, views.indices, views.bad)

    def _batch(self, part: _Prepared, epoch: int, number: int) -> Batch[Tensor]:
        images, labels, indices, bad = part
        if self._augment is not None and len(images):
            images, labels = self._augment.mix(images, labels, epoch, number)
        return Batch(images, labels, indices, tuple(bad.values()), np.array(list(bad), dtype=np.int64))


def _batches_at_once(images: Images, batch_size: int, preprocessing: Preprocessing, device: torch.device) -> int:
    """How many batches are prepared together.

    What is done to each image alone does not depend on that. An accelerator takes as long to be told what to do with
    one batch as with many; a CPU is quickest with what fits its cache.
    """
    if device.type == "cpu" or images.kind == "file":
        return 1
    image = 4 * preprocessing.channels * preprocessing.size**2
    return max(1, _PREPARED_BYTES // (image * batch_size))


def _split(prepared: _Prepared, group: Sequence[Indices]) -> Iterator[_Prepared]:
    """The batches, which `group` lists with all that was asked for."""
    start = 0
    for asked in group:
        bad = {index: prepared.bad[index] for index in asked.tolist() if index in prepared.bad}
        end = start + len(asked) - len(bad)
        yield _Prepared(prepared.images[start:end], prepared.labels[start:end], prepared.indices[start:end], bad)
        start = end


def train_loader(
    source: Split | Images,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    classes: int,
    batch_size: int,
    settings: LoaderSettings,
    colours: ChannelStatistics | None = None,
) -> Loader:
    """Augmented batches in a random order of (settings.seed, epoch): every image at most once an epoch.

    An epoch has floor(N / global batch) full batches, where the global batch is `batch_size` times the number
    of processes, and each process gets its slice of each; with fewer images, one batch of them all. A bad
    file is left out of its batch. source: a split, or what `open_images` made of it with the same geometry
    and augmentation; colours: the statistics that `lighting` needs.
    """
    images = _images(source, preprocessing, augmentation, settings)
    _check_labels(images.split)
    if augmentation.lighting and preprocessing.channels != 3:
        raise UserError("lighting shifts colours, and these images are grey; set lighting to 0")
    order, length = _training_order(len(images.split), batch_size, settings)
    augment = Augmenter(augmentation, preprocessing, settings.seed, classes, colours)
    return Loader(images, order, length, batch_size, preprocessing, settings.device, augment)


def evaluation_loader(
    source: Split | Images, preprocessing: Preprocessing, *, batch_size: int, settings: LoaderSettings
) -> Loader:
    """Centre views in the split's order, each exactly once over all processes; the last batch may be smaller.

    Process r of n gets the samples r, r + n, ... Bad files are reported in their batches, whatever `strict`
    says.
    """
    settings = replace(settings, strict=False)
    images = _images(source, preprocessing, Augmentation(), settings)
    mine = np.arange(settings.world.rank, len(images.split), settings.world.size)
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    return Loader(images, lambda epoch: batches, len(batches), batch_size, preprocessing, settings.device)


def _images(
    source: Split | Images,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    settings: LoaderSettings,
) -> Images:
    if isinstance(source, MemoryImages | FileImages):
        return source
    return open_images(source, preprocessing, augmentation, settings)


def _check_labels(split: Split) -> None:
    unknown = int((split.labels < 0).sum())
    if unknown:
        raise UserError(f"{unknown} training images have no class of the class list; leave them out of the data")


def _training_order(length: int, batch_size: int, settings: LoaderSettings) -> tuple[Order, int]:
    """The order, and how many batches it has."""
    world, seed = settings.world, settings.seed
    if length < world.size:
        raise UserError(f"{length} training images for {world.size} processes; each needs one at least")
    share = min(batch_size, length // world.size)  # all there is, where one global batch is more
    count = length // (share * world.size)

    def batches(epoch: int) -> list[Indices]:
        order = permutation(seed, "order", epoch, length)[: count * world.size * share]
        return list(order.reshape(count, world.size, share)[:, world.rank])

    return batches, count
