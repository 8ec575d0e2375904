"""Where a split's images wait: in memory as one uint8 tensor, or in their files, read by workers."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from residuum.data.augmentations import Augmentation
from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import Indices, Split
from residuum.data.views import CentreView, MixedSizesError, RandomView, View, WholeView
from residuum.distributed import World
from residuum.errors import UserError

Kind = Literal["memory", "file"]
Progress = Callable[[int, int], None]
"""Called with the number of images read so far and the number of all."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_MOST_BYTES = 4 * 2**30
_READ_AT_ONCE = 128
_PROBES = 1000


@dataclass(frozen=True)
class LoaderSettings:
    """How images are fetched; nothing here changes which images a run sees, but `seed`.

    kind: "memory" or "file", or "auto" for memory where the images fit; workers: processes that decode, 0 for
    this one; strict: raise UserError at the first bad file instead of leaving it out.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    world: World = field(default_factory=World)
    kind: Literal["auto", "memory", "file"] = "auto"
    seed: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("auto", "memory", "file"):
            raise UserError(f"loader {self.kind!r}; allowed: auto, memory, file")
        if self.workers < 0:
            raise UserError(f"{self.workers} workers; 0 decodes in the main process")


class WorkerDiedError(UserError):
    """A process that decodes images is gone: killed, by a signal or for want of memory."""


class Request(NamedTuple):
    """The samples of one batch, (N,) int64, in one epoch."""

    epoch: int
    indices: Indices


class Views(NamedTuple):
    """What came of a request: (M, C, H, W) uint8, their M sample indices, and what could not be read."""

    images: Tensor
    indices: Indices
    bad: dict[int, BadImage]


class _Reader(Dataset[Views]):
    """Reads and views one batch at a time; what a worker process holds."""

    def __init__(self, split: Split, preprocessing: Preprocessing, view: View) -> None:
        self._split, self._view = split, view
        self._channels, self._size = preprocessing.channels, preprocessing.size

    def __getitem__(self, request: Request) -> Views:
        images, readable, bad = [], [], {}
        for index in request.indices.tolist():
            try:
                images.append(self._split.read(index, self._channels))
                readable.append(index)
            except BadImage as error:
                bad[index] = error
        indices = np.array(readable, dtype=np.int64)
        if not images:
            nothing = torch.empty((0, self._channels, self._size, self._size), dtype=torch.uint8)
            return Views(nothing, indices, bad)
        return Views(self._view(images, request.epoch, indices), indices, bad)


class Pool(Generic[Asked, Answer]):
    """Worker processes that stay from one reading to the next; none with `workers=0`.

    source: what each of them holds; `source[request]` is the answer to a request.
    """

    def __init__(self, source: Dataset[Answer], settings: LoaderSettings) -> None:
        self._requests: list[Asked] = []
        self._loader: DataLoader[Answer] = DataLoader(
            source,
            sampler=self._requests,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=settings.workers,
            worker_init_fn=_start_worker,
            persistent_workers=settings.workers > 0,
            pin_memory=settings.device.type == "cuda",
            generator=torch.Generator(),  # else every epoch would draw from the global one
        )

    def read(self, requests: Sequence[Asked]) -> Iterator[Answer]:
        """The answer to each request, in order. One iteration at a time. Raises WorkerDiedError."""
        self._requests[:] = requests
        try:
            with _quiet_about_children():
                answers = iter(self._loader)
            yield from answers
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not _tells_of_a_dead_worker(error):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise WorkerDiedError(f"a worker process died ({reason}); if memory ran out, lower -j") from error


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Not so an error raised inside of a worker, which comes with its traceback as text."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    return "in DataLoader worker process" not in str(error)


@contextmanager
def _quiet_about_children() -> Iterator[None]:
    """Undo PyTorch's SIGCHLD handler, which raises in the midst of whatever runs, a checkpoint's writing say.

    A dead worker is then noticed, within seconds, where its next batch is waited for.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _as_it_is(answer: Any) -> Any:
    return answer


def _start_worker(_: int) -> None:
    """Ctrl-C reaches every process of the terminal: the main one decides, and needs its workers till then."""
    signal.set_wakeup_fd(-1)  # a worker's signals are not the main process's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # torchrun signals the whole group of each process that it started


class FileImages:
    """Images that stay in their files and are decoded for every use.

    `bad`: what could not be read so far, by sample index.
    """

    kind: Kind = "file"

    def __init__(self, split: Split, preprocessing: Preprocessing, view: View, settings: LoaderSettings) -> None:
        self.split = split
        self.bad: dict[int, BadImage] = {}
        self._preprocessing, self._settings = preprocessing, settings
        self._pool: Pool[Request, Views] = Pool(_Reader(split, preprocessing, view), settings)

    def read(self, requests: Sequence[Request]) -> Iterator[Views]:
        """The views of each request, in order. One iteration at a time."""
        for views in self._pool.read(requests):
            _note(views.bad, self.bad, self._settings.strict)
            yield views

    def centre_views(self, limit: int = 100_000) -> Iterator[Tensor]:
        """At most `limit` evenly spaced images, bad ones left out, in batches of (N, C, S, S) uint8."""
        reader = _Reader(self.split, self._preprocessing, CentreView(self._preprocessing))
        pool: Pool[Request, Views] = Pool(reader, self._settings)
        for views in pool.read(_requests(_evenly_spaced(len(self.split), limit))):
            _note(views.bad, self.bad, self._settings.strict)
            yield views.images


class MemoryImages:
    """All images, decoded once, as one uint8 tensor on the device.

    images: (N, C, H, W) uint8, zeros where `bad` has the index; they are the centre views, or the whole
    images where a random view is given.
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
        return self._images.index_select(0, torch.from_numpy(indices).to(self._images.device))


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
    when all images have one size. Raises UserError where `settings.kind` forces what is impossible, and, with
    `settings.strict`, at the first bad file.
    """
    crops = augmentation.crops_at_random
    view = RandomView(preprocessing, augmentation, settings.seed) if crops else CentreView(preprocessing)
    try:
        if _belong_in_memory(split, preprocessing, crops, settings):
            return _load(split, preprocessing, view, settings, progress)
    except MixedSizesError:
        if settings.kind == "memory":
            raise UserError(
                "the images differ in size, so random crops cannot be taken in memory; use the file loader"
            ) from None
    return FileImages(split, preprocessing, view, settings)


def _belong_in_memory(split: Split, preprocessing: Preprocessing, whole: bool, settings: LoaderSettings) -> bool:
    if settings.kind == "file":
        return False
    height, width = _common_size(split) if whole else (preprocessing.size, preprocessing.size)
    needed = len(split) * preprocessing.channels * height * width
    free = _free_bytes(settings.device)
    if settings.device.type == "cpu":
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
    settings: LoaderSettings,
    progress: Progress | None,
) -> MemoryImages:
    kept: View = WholeView() if isinstance(view, RandomView) else view
    pool: Pool[Request, Views] = Pool(_Reader(split, preprocessing, kept), settings)
    pixels: Tensor | None = None
    bad: dict[int, BadImage] = {}
    done = 0
    for views in pool.read(_requests(np.arange(len(split)))):
        _note(views.bad, bad, settings.strict)
        done += len(views.indices) + len(views.bad)
        if len(views.indices):
            if pixels is None:
                pixels = torch.zeros((len(split), *views.images.shape[1:]), dtype=torch.uint8)
            if pixels.shape[1:] != views.images.shape[1:]:
                raise MixedSizesError
            pixels[torch.from_numpy(views.indices)] = views.images
        if progress is not None:
            progress(done, len(split))
    if pixels is None:
        raise UserError(f"none of the {len(split)} images can be read; run `residuum check` on the data")
    return MemoryImages(split, pixels.to(settings.device), bad, view)


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
