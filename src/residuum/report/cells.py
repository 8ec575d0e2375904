"""The cells of a table as text, the same in a terminal and on a page."""

import math
from collections.abc import Iterable

from residuum.records import Cell, Table


def numeric_columns(table: Table) -> list[bool]:
    """For each column, whether everything in it is a number."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    return [
        any(cell is not None for cell in column)
        and all(cell is None or isinstance(cell, (int, float)) for cell in column)
        for column in columns
    ]


def cell_texts(table: Table) -> list[list[str]]:
    """The rows as text; the floats of one column share their number of decimals.

    Percentages have two: those of a column that ends in "[%]", and of a whole table whose title ends in ", in %".
    """
    in_percent = table.title.endswith(", in %")
    columns = zip(table.columns, zip(*table.rows, strict=True), strict=bool(table.rows))
    decimals = [
        decimals_of((cell for cell in column if isinstance(cell, float)), percent=in_percent or name.endswith("[%]"))
        for name, column in columns
    ]
    return [[_text(cell, places) for cell, places in zip(row, decimals, strict=True)] for row in table.rows]


def decimals_of(values: Iterable[float], *, percent: bool = False) -> int:
    """Decimals by the largest value: a probability or a loss has four, thousands none; a percentage has two."""
    if percent:
        return 2
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 4 if largest < 10 else 2 if largest < 1000 else 0


def _text(cell: Cell, decimals: int) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, (bool, str)):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    smallest = 10.0**-decimals
    return f"< {smallest:.{decimals}f}" if 0 < cell < smallest / 2 and decimals else f"{cell:,.{decimals}f}"
