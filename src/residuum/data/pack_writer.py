"""One split of a pack: worker processes read the headers, then decode, and what they decode is written as it comes."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from residuum.data.decoding import GREY_MODES, BadImage, ImageFacts
from residuum.data.packed_split import (
    DIGEST_BYTES,
    HEADER_BYTES,
    Arrays,
    Counts,
    PackedSplit,
    digest,
    header,
    layout,
    map_file,
)
from residuum.data.splits import Labels, Split
from residuum.data.workers import LoaderSettings, Pool, Progress

# The filter and the rounding of the view that evaluation takes: where it resizes to the same side, a pack gives it
# the same bytes. For random crops, too, no filter of Pillow's comes nearer to those of the original.
_FILTER = Image.Resampling.BILINEAR
_CHUNK_BYTES, _CHUNK_IMAGES = 4 * 2**20, 256  # that a worker hands over at once; one larger image goes alone


@dataclass(frozen=True, eq=False)
class SplitPlan:
    """A split, and what the headers of its images say of it.

    sizes: (N, 2) int32, height and width in the pack, 0 where the header cannot be read; codes: (N,) uint8 into
    `modes`, Pillow's names, "" for such a header; shorter_side: what that of larger images is reduced to.
    """

    split: Split
    labels: Labels
    sizes: NDArray[np.int32]
    codes: NDArray[np.uint8]
    modes: tuple[str, ...]
    shorter_side: int | None

    @property
    def channels(self) -> int:
        """1 where every image is grey, else 3."""
        return 1 if {*self.modes} <= {*GREY_MODES, ""} else 3

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) bytes of each image."""
        return self.sizes.astype(np.int64).prod(axis=1) * self.channels

    def counts(self) -> Counts:
        """The numbers of the file, if every image whose header can be read is sound."""
        name_bytes = sum(len(_encoded(name)) for name in self.split.names)
        columns = self.labels.shape[1] if self.labels.ndim == 2 else 0
        return Counts(len(self.split), self.channels, columns, name_bytes, int(self.lengths.sum()))


def plan_split(
    split: Split, labels: Labels, shorter_side: int | None, settings: LoaderSettings, progress: Progress
) -> SplitPlan:
    """Read every header. labels: (N,) int64 or (N, K) uint8."""
    sizes = np.zeros((len(split), 2), np.int32)
    codes = np.zeros(len(split), np.uint8)
    modes: dict[str, int] = {}
    chunks = _chunks(np.ones(len(split), np.int64))
    pool: Pool[range, list[ImageFacts | None]] = Pool(_Prober(split), settings)
    for indices, found in zip(chunks, pool.read(chunks), strict=True):
        for index, facts in zip(indices, found, strict=True):
            if facts is not None:
                sizes[index] = reduced_size(facts.height, facts.width, shorter_side)
            codes[index] = modes.setdefault(facts.mode if facts else "", len(modes))
        progress(indices.stop, len(split))
    return SplitPlan(split, labels, sizes, codes, tuple(modes), shorter_side)


def write_split(file: Path, plan: SplitPlan, settings: LoaderSettings, progress: Progress) -> PackedSplit:
    """Decode every image and write the file. What gives none is left out; its name stays, with the reason."""
    chunks, planned = _chunks(plan.lengths), plan.counts()
    written = _Written.nothing(len(plan.split))
    pool: Pool[range, _Decoded] = Pool(_Decoder(plan.split, plan.channels, plan.shorter_side), settings)
    with file.open("wb") as stream:
        stream.seek(HEADER_BYTES + layout(planned)["pixels"].start)
        for indices, decoded in zip(chunks, pool.read(chunks), strict=True):
            stream.write(decoded.pixels.numpy().data)
            written.add(decoded)
            progress(indices.stop, len(plan.split))
        arrays = _index(plan, written)
        counts = replace(
            planned,
            pixel_bytes=int(arrays["offsets"][-1]),
            left_out=len(arrays["bad"]),
            reason_bytes=len(arrays["reasons"]),
        )
        places = layout(counts)
        for name, array in arrays.items():
            stream.seek(HEADER_BYTES + places[name].start)
            stream.write(np.ascontiguousarray(array).tobytes())
        stream.seek(0)
        stream.write(header(counts))
    return PackedSplit(file, counts, plan.modes, plan.labels, map_file(file, counts))


def _index(plan: SplitPlan, written: "_Written") -> Arrays:
    """All arrays of the file but the pixels."""
    names, reasons = [[_encoded(text) for text in texts] for texts in (plan.split.names, written.bad.values())]
    readable = np.ones(len(plan.split), bool)
    readable[[*written.bad]] = False
    lengths = written.sizes.astype(np.int64).prod(axis=1) * plan.channels
    return {
        "offsets": np.cumsum([0, *lengths.tolist()], dtype="<i8"),
        "name_ends": np.cumsum([len(name) for name in names], dtype="<i8"),
        "sizes": np.where(readable[:, None], written.sizes, plan.sizes).astype("<i4"),
        "labels": plan.labels.astype("<i8" if plan.labels.ndim == 1 else "u1"),
        "digests": written.digests,
        "modes": plan.codes,
        "names": np.frombuffer(b"".join(names), np.uint8),
        "bad": np.array([*written.bad], "<i8"),
        "reason_ends": np.cumsum([len(reason) for reason in reasons], dtype="<i8"),
        "reasons": np.frombuffer(b"".join(reasons), np.uint8),
    }


@dataclass(frozen=True, eq=False)
class _Written:
    """What is known of the images after decoding; sizes (N, 2) and digests are 0 where one gave none."""

    sizes: NDArray[np.int32]
    digests: NDArray[np.uint8]
    bad: dict[int, str]

    @classmethod
    def nothing(cls, images: int) -> Self:
        return cls(np.zeros((images, 2), np.int32), np.zeros((images, DIGEST_BYTES), np.uint8), {})

    def add(self, decoded: "_Decoded") -> None:
        self.sizes[decoded.indices], self.digests[decoded.indices] = decoded.sizes, decoded.digests
        self.bad.update(decoded.bad)


class _Decoded(NamedTuple):
    """Some images: their pixels one after another, which they are, their sizes (M, 2), digests, and the bad ones."""

    pixels: Tensor
    indices: list[int]
    sizes: NDArray[np.int32]
    digests: NDArray[np.uint8]
    bad: dict[int, str]


class _Prober(Dataset[list[ImageFacts | None]]):
    """Reads the headers that it is asked for, None for one that cannot be read; what a worker process holds."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, indices: range) -> list[ImageFacts | None]:
        return [self._probed(index) for index in indices]

    def _probed(self, index: int) -> ImageFacts | None:
        try:
            return self._split.probe(index)
        except BadImage:
            return None


class _Decoder(Dataset[_Decoded]):
    """Decodes and reduces the images that it is asked for; what a worker process holds."""

    def __init__(self, split: Split, channels: int, shorter_side: int | None) -> None:
        self._split, self._channels, self._shorter_side = split, channels, shorter_side

    def __getitem__(self, indices: range) -> _Decoded:
        images, readable, bad = [], [], {}
        for index in indices:
            try:
                images.append(reduced(self._split.read(index, self._channels), self._shorter_side))
                readable.append(index)
            except BadImage as error:
                bad[index] = error.reason
        pixels = np.concatenate([np.empty(0, np.uint8), *(image.ravel() for image in images)])
        sizes = np.array([image.shape[:2] for image in images], np.int32).reshape(-1, 2)
        digests = np.frombuffer(b"".join(map(digest, images)), np.uint8).reshape(-1, DIGEST_BYTES)
        return _Decoded(torch.from_numpy(pixels), readable, sizes, digests, bad)


def reduced(image: NDArray[np.uint8], shorter_side: int | None) -> NDArray[np.uint8]:
    """The (H, W, C) image reduced to a shorter side, with anti-aliasing; one that has no more is left as it is."""
    height, width, channels = image.shape
    new = reduced_size(height, width, shorter_side)
    if new == (height, width):
        return image
    whole = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return np.array(whole.resize(new[::-1], _FILTER)).reshape(*new, channels)


def reduced_size(height: int, width: int, shorter_side: int | None) -> tuple[int, int]:
    """Height and width of the reduced image, the longer side rounded down as in `Preprocessing.view`."""
    shorter = min(height, width)
    if shorter_side is None or shorter <= shorter_side:
        return height, width
    longer = int(shorter_side * max(height, width) / shorter)
    return (shorter_side, longer) if height <= width else (longer, shorter_side)


def _chunks(lengths: NDArray[np.int64]) -> list[range]:
    """All indices in order, in pieces that workers hand over at once."""
    starts, held = [0], 0
    for index, length in enumerate(lengths.tolist()):
        if index > starts[-1] and (held + length > _CHUNK_BYTES or index - starts[-1] == _CHUNK_IMAGES):
            starts.append(index)
            held = 0
        held += length
    return [range(start, end) for start, end in pairwise([*starts, len(lengths)]) if end > start]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
