"""A split of a pack: decoded images in one file, mapped into memory so that processes share its pages.

The file is a `.safetensors`, which any reader of that format opens. Where everything lies in it follows from a few
counts: the header is not parsed but compared with the one that is due.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from residuum.data.decoding import MAX_PIXELS, BadImage, ImageFacts
from residuum.data.splits import Labels, Names
from residuum.errors import UserError, printable

HEADER_BYTES = 2048  # of which the first 8 hold the length of the rest; spaces fill it up, as the format allows
DIGEST_BYTES = 16

_LARGEST_INDEX = 2**32  # bytes of all but the pixels, some 60 million images
_NUMPY_TYPES = {"I64": "<i8", "I32": "<i4", "U8": "u1"}

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Counts:
    """The numbers that decide where everything lies in a split's file.

    channels: 1 where every image is grey, else 3; label_columns: of the class matrix, 0 where each image has one
    label; left_out: images that gave none.
    """

    images: int
    channels: int
    label_columns: int
    name_bytes: int
    pixel_bytes: int = 0
    left_out: int = 0
    reason_bytes: int = 0


class Field(NamedTuple):
    """One array in a file: its type and shape, and its first and last byte behind the header."""

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def layout(counts: Counts) -> dict[str, Field]:
    """Where each array of a split lies.

    What is known only once all is decoded lies from the pixels on, so that they can be written as they come.
    sizes: height and width, those of the header where only that could be read; bad: the indices of what was left out.
    """
    n, bad = counts.images, counts.left_out
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "offsets": ("I64", (n + 1,)),
        "name_ends": ("I64", (n,)),
        "sizes": ("I32", (n, 2)),
        "labels": ("U8", (n, counts.label_columns)) if counts.label_columns else ("I64", (n,)),
        "digests": ("U8", (n, DIGEST_BYTES)),
        "modes": ("U8", (n,)),
        "names": ("U8", (counts.name_bytes,)),
        "pixels": ("U8", (counts.pixel_bytes,)),
        "bad": ("I64", (bad,)),
        "reason_ends": ("I64", (bad,)),
        "reasons": ("U8", (counts.reason_bytes,)),
    }
    found, start = {}, 0
    for name, (kind, shape) in shapes.items():
        end = start + math.prod(shape) * np.dtype(_NUMPY_TYPES[kind]).itemsize
        found[name] = Field(kind, shape, start, end)
        start = end
    return found


def file_bytes(counts: Counts) -> int:
    """How long the file of a split is."""
    return HEADER_BYTES + layout(counts)["reasons"].end


def header(counts: Counts) -> bytes:
    """The first HEADER_BYTES of a split's file: its length and the safetensors table of its arrays."""
    table = {
        name: {"dtype": field.kind, "shape": list(field.shape), "data_offsets": [field.start, field.end]}
        for name, field in layout(counts).items()
    }
    length = HEADER_BYTES - 8
    return length.to_bytes(8, "little") + json.dumps(table, separators=(",", ":")).encode().ljust(length)


@dataclass(frozen=True, eq=False)
class PackedSplit:
    """Decoded images in a file.

    modes: Pillow's names for what they were before, "" for a header that could not be read; arrays: those of
    `layout`, mapped, which another process does by itself.
    """

    file: Path
    counts: Counts
    modes: tuple[str, ...]
    labels: Labels
    arrays: Arrays

    def __len__(self) -> int:
        return self.counts.images

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("file", "counts", "modes", "labels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, arrays=map_file(state["file"], state["counts"]))

    @cached_property
    def names(self) -> Names:
        return _MappedNames(self.arrays["name_ends"], self.arrays["names"])

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        height, width = self.arrays["sizes"][index].tolist()
        image = self._pixels(index).reshape(height, width, self.counts.channels)
        if self.counts.channels == channels:
            return image.copy()
        if channels == 3:
            return np.repeat(image, 3, axis=2)
        return np.array(Image.fromarray(image).convert("L"))[:, :, None]

    def probe(self, index: int) -> ImageFacts:
        mode = self.modes[self.arrays["modes"][index]]
        if not mode:
            raise self._bad(index)
        height, width = self.arrays["sizes"][index].tolist()
        return ImageFacts(width, height, mode)

    def content(self, index: int) -> bytes:
        """The bytes of an image and its size. Raises BadImage where they are not those that were packed."""
        height, width = self.arrays["sizes"][index].tolist()
        pixels = self._pixels(index)
        if digest(pixels.reshape(height, width, self.counts.channels)) != self.signature(index):
            raise BadImage(self.names[index], "its pixels are not those that were packed")
        return self.arrays["sizes"][index].tobytes() + pixels.tobytes()

    def signature(self, index: int) -> bytes:
        return self.arrays["digests"][index].tobytes()

    def left_out(self, most: int) -> list[BadImage]:
        """The first of the images that reading refuses."""
        return [self._bad(index) for index in self.arrays["bad"][:most].tolist()]

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        start, end = self.arrays["offsets"][index : index + 2].tolist()
        if start == end:
            raise self._bad(index)
        return self.arrays["pixels"][start:end]

    def _bad(self, index: int) -> BadImage:
        left_out = self.arrays["bad"]
        place = int(np.searchsorted(left_out, index))
        if place == len(left_out) or left_out[place] != index:
            return BadImage(self.names[index], "a damaged header")
        reasons = _MappedNames(self.arrays["reason_ends"], self.arrays["reasons"])
        return BadImage(self.names[index], printable(reasons[place], longest=None))


def digest(image: NDArray[np.uint8]) -> bytes:
    """DIGEST_BYTES that tell an (H, W, C) image from any other."""
    found = hashlib.blake2b(repr(image.shape).encode(), digest_size=DIGEST_BYTES)
    found.update(image.tobytes())
    return found.digest()


class _MappedNames(Names):
    """Strings in a file. ends: (N,), where each ends among `encoded`, their UTF-8 bytes."""

    def __init__(self, ends: NDArray[np.int64], encoded: NDArray[np.uint8]) -> None:
        self._ends, self._encoded = ends, encoded

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return self._encoded[start : self._ends[index]].tobytes().decode("utf-8", "backslashreplace")


def open_split(file: Path, counts: Counts, modes: tuple[str, ...], classes: int) -> PackedSplit:
    """The split in a file, its index checked, its pixels left alone. classes: how many its labels may index.

    Raises UserError where it is damaged or not what the counts say.
    """
    arrays = map_file(file, counts)
    if fault := _fault(arrays, counts, classes, len(modes)):
        raise damaged(file, fault)
    return PackedSplit(file, counts, modes, np.array(arrays["labels"]), arrays)


def map_file(file: Path, counts: Counts) -> Arrays:
    """The arrays of a file as views of its mapped pages, once its length and header are what they should be."""
    if not file.is_file():  # nor is a named pipe, which would be waited for
        raise damaged(file, "no such file")
    expected, actual = file_bytes(counts), file.stat().st_size
    if actual != expected:
        raise damaged(file, f"{actual:,} bytes instead of {printable(f'{expected:,}')}")
    if counts.images > counts.pixel_bytes + counts.left_out or expected - counts.pixel_bytes > _LARGEST_INDEX:
        raise damaged(file, "an index too large for its images")
    whole = np.asarray(np.memmap(file, np.uint8, mode="r", shape=(expected,)))
    if whole[:HEADER_BYTES].tobytes() != header(counts):
        raise damaged(file, "its header is not what pack.json describes")
    return {
        name: whole[HEADER_BYTES + field.start : HEADER_BYTES + field.end]
        .view(_NUMPY_TYPES[field.kind])
        .reshape(field.shape)
        for name, field in layout(counts).items()
    }


def _fault(arrays: Arrays, counts: Counts, classes: int, modes: int) -> str | None:
    """What in the index of a split would lead astray; None where it is sound."""
    labels, sizes, bad = arrays["labels"], arrays["sizes"].astype(np.int64), arrays["bad"]
    lowest, highest = (0, 1) if counts.label_columns else (-1, classes - 1)
    if labels.min(initial=0) < lowest or labels.max(initial=lowest) > highest:
        return "a label beyond the class list"
    if arrays["modes"].max(initial=0) >= max(modes, counts.images == 0):
        return "a mode that is not listed"
    if not _rise_to(arrays["name_ends"], counts.name_bytes):
        return "its names overlap"
    if not _rise_to(arrays["reason_ends"], counts.reason_bytes):
        return "its reasons overlap"
    if bad.min(initial=0) < 0 or bad.max(initial=-1) >= counts.images or (bad[1:] <= bad[:-1]).any():
        return "the images left out are none of its images"
    areas = sizes.prod(axis=1)
    readable = np.ones(counts.images, bool)
    readable[bad] = False
    if sizes.min(initial=0) < 0 or not ((areas[readable] > 0) & (areas[readable] <= MAX_PIXELS)).all():
        return "an image of an impossible size"
    ends = np.cumsum(areas * readable * counts.channels)
    if arrays["offsets"][0] != 0 or (arrays["offsets"][1:] != ends).any() or ends[-1:].sum() != counts.pixel_bytes:
        return "its images overlap"
    return None


def _rise_to(ends: NDArray[np.int64], total: int) -> bool:
    """Whether pieces that end there follow one another from 0 to `total`."""
    if not len(ends):
        return total == 0
    return bool(ends[0] >= 0 and ends[-1] == total and (ends[1:] >= ends[:-1]).all())


def damaged(file: Path, fault: str) -> UserError:
    """The refusal of a file that is not as it was written."""
    return UserError(f"{file} is damaged ({fault}); copy it again, or pack the data anew")
