"""Where a split's images wait: in memory as one uint8 tensor, or in their files, read by workers."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from residuum.data.augmentations import Augmentation
from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.data.sharing import CannotShareError, neighbours, refusal, shared_zeros, together
from residuum.data.splits import Indices, Split
from residuum.data.views import CentreView, MixedSizesError, RandomView, View, WholeView
from residuum.data.workers import READ_AHEAD, LoaderSettings, Pool, Progress
from residuum.distributed import World
from residuum.errors import UserError
from residuum.hardware import upload

Kind = Literal["memory", "file"]
_MOST_BYTES = 4 * 2**30
_READ_AT_ONCE = 128
_DECODED_BYTES = 2**23  # fit a processor's cache, and are some ten photographs of a data set's usual size
_PROBES = 1000


class Request(NamedTuple):
    """The samples of one batch, (N,) int64, in one epoch."""

    epoch: int
    indices: Indices


class Views(NamedTuple):
    """What came of a request: (M, C, H, W) uint8, their M sample indices, and what could not be read."""

    images: Tensor
    indices: Indices
    bad: dict[int, BadImage]


class _Placed(NamedTuple):
    """A request, and the number of the slot for its views."""

    request: Request
    slot: int


class _Filled(NamedTuple):
    """What is in a slot: the views of these samples, one behind the other; and what could not be read."""

    indices: Indices
    bad: dict[int, BadImage]


class _Reader(Dataset[_Filled]):
    """Reads the images of one request and writes their views into its slot; what a worker process holds.

    slots: (slots, N, height, width, C) uint8, which the workers share with the main process. No decoded image is
    held beyond the one that fills _DECODED_BYTES.
    """

    def __init__(self, split: Split, channels: int, view: View, size: tuple[int, int]) -> None:
        self._split, self._channels, self._view = split, channels, view
        self.slots = torch.empty((0, 0, *size, channels), dtype=torch.uint8)

    def __getitem__(self, placed: _Placed) -> _Filled:
        (epoch, indices), slot = placed.request, self.slots[placed.slot]
        readable: list[int] = []
        bad: dict[int, BadImage] = {}
        for found, images in self._decoded(indices, bad):
            self._write(slot[len(readable) :], images, epoch, np.array(found, dtype=np.int64))
            readable += found
        return _Filled(np.array(readable, dtype=np.int64), bad)

    def _decoded(
        self, indices: Indices, bad: dict[int, BadImage]
    ) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
        """Some indices and their images at a time, which are emptied when the next are asked for."""
        found: list[int] = []
        images: list[NDArray[np.uint8]] = []
        for index in indices.tolist():
            try:
                images.append(self._split.read(index, self._channels))
                found.append(index)
            except BadImage as error:
                bad[index] = error
            if sum(image.nbytes for image in images) >= _DECODED_BYTES:
                yield found, images
                found.clear()
                images.clear()
        if images:
            yield found, images

    def _write(self, room: Tensor, images: list[NDArray[np.uint8]], epoch: int, indices: Indices) -> None:
        """Put their views at the start of `room`."""
        views = self._view(images, epoch, indices).permute(0, 2, 3, 1)
        if views.shape[1:] != room.shape[1:]:
            raise MixedSizesError
        room[: len(views)] = views


class _ViewPool(Pool[_Placed, _Filled]):
    """Workers that write views of one size into memory shared with this process.

    It holds one request's views more than the 2 a worker that are read ahead, and is used again and again: to map
    new memory for each batch takes a tenth of the time of decoding it.
    """

    def __init__(
        self, split: Split, channels: int, view: View, size: tuple[int, int], settings: LoaderSettings
    ) -> None:
        self._reader = _Reader(split, channels, view, size)
        self._settings = settings
        super().__init__(self._reader, settings)

    def views(self, requests: Sequence[Request]) -> Iterator[Views]:
        """The views of each request, in order, each to be used before the next is asked for."""
        self._make_room(max((len(request.indices) for request in requests), default=0))
        slots = self._reader.slots
        placed = [_Placed(request, number % len(slots)) for number, request in enumerate(requests)]
        for (_, slot), filled in zip(placed, self.read(placed), strict=True):
            yield Views(slots[slot][: len(filled.indices)].permute(0, 3, 1, 2), filled.indices, filled.bad)

    def _make_room(self, images: int) -> None:
        """Have slots for requests of so many images; workers that know smaller ones are started anew."""
        old = self._reader.slots
        if old.shape[1] >= images:
            return
        workers = self._settings.workers
        slots = torch.empty((READ_AHEAD * workers + 1, images, *old.shape[2:]), dtype=torch.uint8)
        self._reader.slots = _shared(slots) if workers else slots
        super().__init__(self._reader, self._settings)


def _shared(tensor: Tensor) -> Tensor:
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
        return tensor
    except RuntimeError as error:
        needed = f"{tensor.numel() / 2**20:,.0f} MiB of shared memory"
        raise UserError(f"the workers need {needed}, and there is less; lower -j or -b, or enlarge /dev/shm") from error


class FileImages:
    """Images that stay in their files and are decoded for every use.

    Takes the memory of 2 * workers + 1 batches of uint8 views, and in each worker of 8 MiB of decoded images and of
    one. `bad`: what could not be read so far, by sample index.
    """

    kind: Kind = "file"

    def __init__(self, split: Split, preprocessing: Preprocessing, view: View, settings: LoaderSettings) -> None:
        self.split = split
        self.bad: dict[int, BadImage] = {}
        self._preprocessing, self._settings = preprocessing, settings
        self._pool = self._new_pool(view)

    def _new_pool(self, view: View) -> _ViewPool:
        side = self._preprocessing.size
        return _ViewPool(self.split, self._preprocessing.channels, view, (side, side), self._settings)

    def read(self, requests: Sequence[Request]) -> Iterator[Views]:
        """The views of each request, in order. One iteration at a time."""
        for views in self._pool.views(requests):
            _note(views.bad, self.bad, self._settings.strict)
            yield views._replace(images=_own(views.images, self._settings.device))

    def centre_views(self, limit: int = 100_000) -> Iterator[Tensor]:
        """At most `limit` evenly spaced images, bad ones left out, in batches of (N, C, S, S) uint8."""
        pool = self._new_pool(CentreView(self._preprocessing))
        for views in pool.views(_requests(_evenly_spaced(len(self.split), limit))):
            _note(views.bad, self.bad, self._settings.strict)
            yield views.images.clone()


def _own(images: Tensor, device: torch.device) -> Tensor:
    """A copy, where a GPU can fetch it without waiting if there is one."""
    return images.pin_memory() if device.type == "cuda" else images.clone()


class MemoryImages:
    """All images, decoded once, as one uint8 tensor on the device.

    images: (N, C, H, W) uint8, channels last, zeros where `bad` has the index; they are the centre views, or the
    whole images where a random view is given.
    """

    kind: Kind = "memory"

    def __init__(self, split: Split, images: Tensor, bad: dict[int, BadImage], view: CentreView | RandomView) -> None:
        self.split, self.bad = split, bad
        self._images, self._view = images, view
        self._readable = np.ones(len(images), dtype=bool)
        self._readable[list(bad)] = False

    def read(self, requests: Sequence[Request]) -> Iterator[Views]:
        """As FileImages.read, to the byte."""
        for epoch, asked in requests:
            indices = asked[self._readable[asked]]
            images = self._select(indices)
            if isinstance(self._view, RandomView):
                images = self._view.of_batch(images, epoch, indices)
            yield Views(images, indices, {int(i): self.bad[int(i)] for i in asked[~self._readable[asked]]})

    def centre_views(self, limit: int = 100_000) -> Iterator[Tensor]:
        """As FileImages.centre_views, to the byte."""
        centre = CentreView(self._view.preprocessing)
        for _, asked in _requests(_evenly_spaced(len(self._images), limit)):
            indices = asked[self._readable[asked]]
            images = self._select(indices)
            if isinstance(self._view, RandomView) and len(indices):
                whole = images.permute(0, 2, 3, 1).cpu().numpy()
                images = centre(list(whole), 0, indices)
            if len(indices):
                yield images

    def _select(self, indices: Indices) -> Tensor:
        chosen = upload(indices, self._images.device)
        return self._images.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)


Images = MemoryImages | FileImages


def open_images(
    split: Split,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    settings: LoaderSettings,
    progress: Progress | None = None,
) -> Images:
    """The split's images in memory where they fit, else in their files; the same views either way.

    They fit when they take at most 4 GiB and a quarter of the device's free memory, and, for random views,
    when all images have one size. The processes of one machine (see `neighbours`) decode a share of them each, and
    see one memory; all of them must call this, and what one of them cannot do, none does. Raises UserError where
    `settings.kind` forces what is impossible, and, with `settings.strict`, at the first bad file.
    """
    crops = augmentation.crops_at_random
    view = RandomView(preprocessing, augmentation, settings.seed) if crops else CentreView(preprocessing)
    peers = neighbours(settings.world)
    try:
        if settings.kind != "file":
            size = together(peers, lambda: _kept_size(split, preprocessing, crops) if peers.is_main else (0, 0))[0]
            needed = len(split) * preprocessing.channels * size[0] * size[1]
            if all(together(peers, lambda: _belong_in_memory(needed, settings, peers))):
                return _load(split, preprocessing, view, size, settings, peers, progress)
    except MixedSizesError:
        if settings.kind == "memory":
            message = "the images differ in size, so random crops cannot be taken in memory; use the file loader"
            raise refusal(peers, message) from None
    except CannotShareError:
        if settings.kind == "memory":
            raise
    return FileImages(split, preprocessing, view, settings)


def _kept_size(split: Split, preprocessing: Preprocessing, whole: bool) -> tuple[int, int]:
    return _common_size(split) if whole else (preprocessing.size, preprocessing.size)


def _belong_in_memory(needed: int, settings: LoaderSettings, peers: World) -> bool:
    """needed: bytes."""
    free = _free_bytes(settings.device)
    if settings.device.type == "cpu" and peers.size == 1:
        free //= settings.world.size  # each process keeps its own copy
    if settings.kind == "auto":
        return needed <= min(_MOST_BYTES, free // 4)
    if needed > free:
        raise UserError(
            f"the images take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} are free; use the file loader"
        )
    return True


def _load(
    split: Split,
    preprocessing: Preprocessing,
    view: CentreView | RandomView,
    size: tuple[int, int],
    settings: LoaderSettings,
    peers: World,
    progress: Progress | None,
) -> MemoryImages:
    pixels = shared_zeros(peers, (len(split), *size, preprocessing.channels))
    kept: View = WholeView() if isinstance(view, RandomView) else view
    pool = _ViewPool(split, preprocessing.channels, kept, size, settings)
    found = together(peers, lambda: _fill(pixels, pool, settings, peers, progress))
    bad = dict(sorted(item for part in found for item in part.items()))
    if len(bad) == len(split):
        raise refusal(peers, f"none of the {len(split)} images can be read; run `residuum check` on the data")
    return MemoryImages(split, pixels.to(settings.device).permute(0, 3, 1, 2), bad, view)


def _fill(
    pixels: Tensor, pool: _ViewPool, settings: LoaderSettings, peers: World, progress: Progress | None
) -> dict[int, BadImage]:
    """Write this process's share of the images into (N, H, W, C) pixels; what could not be read."""
    bad: dict[int, BadImage] = {}
    count, done = len(pixels), 0
    requests = _requests(np.arange(count))[peers.rank :: peers.size]
    share = sum(len(request.indices) for request in requests)
    for views in pool.views(requests):
        _note(views.bad, bad, settings.strict)
        pixels[torch.from_numpy(views.indices)] = views.images.permute(0, 2, 3, 1)
        done += len(views.indices) + len(views.bad)
        if progress is not None:
            progress(done * count // share, count)
    return bad


def _common_size(split: Split) -> tuple[int, int]:
    """Height and width on which up to 1,000 probed images agree; MixedSizesError where they do not."""
    sizes = set()
    for index in _evenly_spaced(len(split), _PROBES).tolist():
        try:
            facts = split.probe(index)
        except BadImage:
            continue
        sizes.add((facts.height, facts.width))
        if len(sizes) > 1:
            raise MixedSizesError
    return sizes.pop() if sizes else (0, 0)  # reading them will tell that nothing can be read


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS does not say what is free


def _evenly_spaced(length: int, limit: int) -> Indices:
    return np.arange(length) if length <= limit else np.arange(limit) * length // limit


def _requests(indices: Indices) -> list[Request]:
    return [Request(0, indices[start : start + _READ_AT_ONCE]) for start in range(0, len(indices), _READ_AT_ONCE)]


def _note(found: dict[int, BadImage], known: dict[int, BadImage], strict: bool) -> None:
    known.update(found)
    if strict and found:
        first = found[min(found)]
        raise UserError(f"bad image {first} ({len(known)} so far); mend or remove it, or leave out --strict")
