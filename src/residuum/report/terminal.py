"""Records as text: aligned tables that survive a pipe, measurements in words, one JSON object."""

import json
import math
import sys
from typing import Any, TextIO

from residuum.records import Cell, Measurement, Table, plain


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print a table: in colour on a terminal, as plain aligned text, never cut, anywhere else."""
    stream = stream or sys.stdout
    if not stream.isatty():
        print(table_text(table), file=stream)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for name, right in zip(table.columns, _numeric(table), strict=True):
        drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in _cells(table):
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console(file=stream, highlight=False)
    if table.title:
        console.print(Text(table.title, style="bold"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))


def table_text(table: Table) -> str:
    """The table as lines of text: title, header, rule, rows, notes; numbers to the right, words left."""
    lines = [list(table.columns), *_cells(table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    lines.insert(1, ["-" * width for width in widths])
    right = _numeric(table)
    body = [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*([table.title, ""] if table.title else []), *body, *table.notes])


def measurement_text(measurement: Measurement) -> str:
    """A measurement in words: `98.61 % (95 % interval 96.8 to 99.4)`."""
    text = f"{measurement.value:.{_decimals([measurement.value])}f}"
    if measurement.unit:
        text += f" {measurement.unit}"
    if measurement.low is not None and measurement.high is not None:
        decimals = _decimals([measurement.high])
        text += f" (95 % interval {measurement.low:.{decimals}f} to {measurement.high:.{decimals}f})"
    return text


def print_json(record: Any) -> None:
    """Print a record, or a nest of records, as one JSON object on stdout; NaN and infinity become null."""
    print(json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False))


def _numeric(table: Table) -> list[bool]:
    """For each column, whether everything in it is a number."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    return [
        any(cell is not None for cell in column)
        and all(cell is None or isinstance(cell, (int, float)) for cell in column)
        for column in columns
    ]


def _cells(table: Table) -> list[list[str]]:
    """The rows as text; the floats of one column share their number of decimals."""
    decimals = [
        _decimals([cell for cell in column if isinstance(cell, float)]) for column in zip(*table.rows, strict=True)
    ]
    return [[_cell(cell, places) for cell, places in zip(row, decimals, strict=True)] for row in table.rows]


def _cell(cell: Cell, decimals: int) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, (bool, str)):
        return str(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.{decimals}f}"


def _decimals(values: list[float]) -> int:
    """Decimals by the largest value: a probability or a loss has four, a percentage two, thousands none."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 4 if largest < 10 else 2 if largest < 1000 else 0
