"""Plain results with units: what functions return, the command line prints and reports draw."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this file, and must not wait for NumPy
    import numpy as np
    from numpy.typing import NDArray

Cell = str | int | float | None


@dataclass(frozen=True)
class Measurement:
    """A measured value with its unit and, where one was computed, its 95 % confidence interval."""

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; `notes` are sentences printed below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)

    def records(self) -> list[dict[str, Cell]]:
        """One dict a row, keyed by column: what `--json` prints."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Series:
    """A named curve: y over x, both with their labels (units in brackets).

    run: which run it is of, counted from 0: its curves are drawn alike in every panel; None: alone, or by its place.
    is_training: it was measured on the images that the network learns from. is_reference: it was not measured but is
    there to compare with. spread: how far the values scatter above and below y, such as a standard deviation; none:
    unknown. has_markers: each point is a measurement of its own, as over depth, and is marked.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    run: int | None = None
    is_training: bool = False
    is_reference: bool = False
    spread: tuple[float, ...] = ()
    has_markers: bool = False

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.y)
        assert len(self.spread) in (0, len(self.y))


@dataclass(frozen=True, eq=False)
class Matrix:
    """A confusion matrix: `values` (R, C) int64 counts, a row a true class, a column a predicted one."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: "NDArray[np.int64]"
    row_label: str = "true"
    column_label: str = "predicted"

    def __post_init__(self) -> None:
        assert self.values.shape == (len(self.rows), len(self.columns))


@dataclass(frozen=True)
class Chart:
    """Curves in panels, side by side. `alt` says it in words.

    log_y: the reader may switch to a logarithmic axis; log_first: it is what the reader sees first.
    """

    title: str
    panels: tuple[tuple[Series, ...], ...]
    alt: str
    log_y: bool = False
    log_first: bool = False

    def __post_init__(self) -> None:
        assert all(self.panels), "a panel has at least one series"
        assert self.log_y or not self.log_first


@dataclass(frozen=True)
class Scatter:
    """Points in the plane, each of the group whose name stands in `groups`; a legend names them as they first appear.

    `alt` says it in words.
    """

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    groups: tuple[str, ...]
    alt: str

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.y) == len(self.groups)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image: `pixels` (H, W, 1 or 3) uint8, what it shows in words, and what stands below it."""

    pixels: "NDArray[np.uint8]"
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3
        assert self.pixels.shape[2] in (1, 3)


@dataclass(frozen=True)
class Gallery:
    """Pictures in a grid; `note` is a sentence printed below.

    columns: how many stand in a row, whatever the width, where a row belongs together; 0: as many as fit.
    """

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""
    columns: int = 0


@dataclass(frozen=True)
class Measurements:
    """The numbers that count: (name, value, small print), the last for instance the protocol.

    one_scale: they are of one measure, of several runs say, and their intervals are drawn on one scale.
    """

    items: tuple[tuple[str, Measurement, str], ...]
    one_scale: bool = False


Part = str | Table | Matrix | Chart | Scatter | Gallery | Measurements


@dataclass(frozen=True)
class Section:
    """A titled stretch of a page; a part that is text is a paragraph."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """What is to be read in one go. `refresh`: seconds after which the browser loads it again, 0 for never."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    refresh: int = 0


def plain(record: Any) -> Any:
    """A record, or a nest of them, as dicts, lists and numbers that JSON has: NaN and infinity become None."""
    if hasattr(record, "__dataclass_fields__"):
        return plain(asdict(record))
    if isinstance(record, Mapping):
        return {str(key): plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record
