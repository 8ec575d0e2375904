"""Splits: labelled images that are read one by one, lean in memory and cheap to hand to worker processes."""

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import ImageFacts, decode, probe, read_bytes

Labels = NDArray[np.integer[Any]]
Indices = NDArray[np.int64]

_LUMA = np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601 in 16-bit fixed point, as Pillow computes it


class Split(Protocol):
    """N labelled images.

    `labels` is (N,) int64 indices into the class list, -1 where the class is not in it; or (N, K) uint8 with
    ones at the classes an image has. `names` says which image a message is about: a path inside the data set,
    "digits[17]".
    """

    @property
    def labels(self) -> Labels: ...

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        """The image as (H, W, channels) uint8, channels 1 or 3. Raises BadImage."""

    def probe(self, index: int) -> ImageFacts:
        """Size and mode without decoding. Raises BadImage."""

    def content(self, index: int) -> bytes:
        """The bytes as stored, the same for exact duplicates. Raises BadImage."""

    def signature(self, index: int) -> bytes:
        """What stands for the content in a fingerprint: a file's size, since reading them all takes long."""


class Names(Sequence[str]):
    """Strings made when asked for, so that a million of them cost a worker process nothing."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The string at 0 <= index < len(self)."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        chosen = range(len(self))[index]
        return self.name(chosen) if isinstance(chosen, int) else [self.name(i) for i in chosen]


class PackedNames(Names):
    """Given strings, in two arrays: forked workers share them, spawned ones get them quickly.

    Kept as the file system's bytes, so that any file name survives; `name` shows what is not UTF-8 escaped.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, index: int) -> bytes:
        """The string as the file system's bytes."""
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].tobytes()

    def name(self, index: int) -> str:
        return self.raw(index).decode("utf-8", "backslashreplace")


class NumberedNames(Names):
    """ "digits[0]", "digits[1]", …"""

    def __init__(self, prefix: str, length: int) -> None:
        self._prefix, self._length = prefix, length

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        return f"{self._prefix}[{index}]"


class ChosenNames(Names):
    """Some of other names, by index."""

    def __init__(self, names: Sequence[str], indices: Indices) -> None:
        self._names, self._indices = names, indices

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._names[int(self._indices[index])]


class _JoinedNames(Names):
    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        part, offset = _locate(self._ends, index)
        return self._parts[part][offset]


def _locate(ends: Indices, index: int) -> tuple[int, int]:
    """Which part holds this index of a concatenation, and where in the part it is."""
    part = int(np.searchsorted(ends, index, side="right"))
    return part, index - (int(ends[part - 1]) if part else 0)


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Images in memory: (N, H, W, 1 or 3) uint8."""

    images: NDArray[np.uint8]
    labels: Labels
    names: Names

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        image = self.images[index]
        if image.shape[2] == channels:
            return image.copy()
        if channels == 3:
            return np.repeat(image, 3, axis=2)
        return ((image @ _LUMA + 0x8000) >> 16).astype(np.uint8)[:, :, None]

    def probe(self, index: int) -> ImageFacts:
        _, height, width, channels = self.images.shape
        return ImageFacts(width, height, "L" if channels == 1 else "RGB")

    def content(self, index: int) -> bytes:
        return self.images[index].tobytes()

    def signature(self, index: int) -> bytes:
        return self.content(index)


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files. `names` are their paths below `folder`; absolute ones stand for themselves."""

    folder: Path
    names: PackedNames
    labels: Labels

    def __len__(self) -> int:
        return len(self.names)

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.names.raw(index))

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        return decode(self._path(index), self.names[index], channels)

    def probe(self, index: int) -> ImageFacts:
        return probe(self._path(index), self.names[index])

    def content(self, index: int) -> bytes:
        return read_bytes(self._path(index), self.names[index])

    def signature(self, index: int) -> bytes:
        try:
            return b"%d" % os.stat(os.path.join(os.fsencode(self.folder), self.names.raw(index))).st_size
        except OSError:
            return b"unreadable"


@dataclass(frozen=True, eq=False)
class BytesSplit:
    """Encoded images one after another in one file, mapped into memory so that processes share its pages.

    file: their bytes; ends: (N,) int64, where each ends.
    """

    file: Path
    ends: Indices
    labels: Labels
    names: Names

    def __len__(self) -> int:
        return len(self.ends)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_mapped"}  # opened anew over there

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        return np.memmap(self.file, np.uint8, mode="r")

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        return decode(self.content(index), self.names[index], channels)

    def probe(self, index: int) -> ImageFacts:
        return probe(self.content(index), self.names[index])

    def content(self, index: int) -> bytes:
        start, end = self._span(index)
        return self._mapped[start:end].tobytes() if end > start else b""

    def signature(self, index: int) -> bytes:
        start, end = self._span(index)
        return b"%d" % (end - start)

    def _span(self, index: int) -> tuple[int, int]:
        return int(self.ends[index - 1]) if index else 0, int(self.ends[index])


@dataclass(frozen=True, eq=False)
class SubSplit:
    """Some images of a split, in the order of `indices` (N,)."""

    split: Split
    indices: Indices

    @cached_property
    def labels(self) -> Labels:
        return self.split.labels[self.indices]

    @cached_property
    def names(self) -> Sequence[str]:
        return ChosenNames(self.split.names, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        return self.split.read(int(self.indices[index]), channels)

    def probe(self, index: int) -> ImageFacts:
        return self.split.probe(int(self.indices[index]))

    def content(self, index: int) -> bytes:
        return self.split.content(int(self.indices[index]))

    def signature(self, index: int) -> bytes:
        return self.split.signature(int(self.indices[index]))


@dataclass(frozen=True, eq=False)
class JoinedSplit:
    """Several splits, one after another."""

    parts: tuple[Split, ...]

    @cached_property
    def labels(self) -> Labels:
        return np.concatenate([part.labels for part in self.parts])

    @cached_property
    def names(self) -> Sequence[str]:
        return _JoinedNames([part.names for part in self.parts])

    @cached_property
    def _ends(self) -> Indices:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _at(self, index: int) -> tuple[Split, int]:
        part, offset = _locate(self._ends, index)
        return self.parts[part], offset

    def read(self, index: int, channels: int) -> NDArray[np.uint8]:
        split, offset = self._at(index)
        return split.read(offset, channels)

    def probe(self, index: int) -> ImageFacts:
        split, offset = self._at(index)
        return split.probe(offset)

    def content(self, index: int) -> bytes:
        split, offset = self._at(index)
        return split.content(offset)

    def signature(self, index: int) -> bytes:
        split, offset = self._at(index)
        return split.signature(offset)
