"""Plain results with units: what functions return, the command line prints and reports draw."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
    """A named curve: y over x, both with their labels (units in brackets)."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.y)


def plain(record: Any) -> Any:
    """A record, or a nest of them, as dicts, lists and numbers that JSON has: NaN and infinity become None."""
    if hasattr(record, "__dataclass_fields__"):
        return plain(asdict(record))
    if isinstance(record, Mapping):
        return {str(key): plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record
