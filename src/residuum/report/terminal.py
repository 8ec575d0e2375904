"""Records as text: aligned tables that survive a pipe, measurements in words, one JSON object."""

import json
import sys
from typing import Any, TextIO

from residuum.records import Measurement, Table, plain
from residuum.report.cells import cell_texts, decimals_of, numeric_columns


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
    for name, right in zip(table.columns, numeric_columns(table), strict=True):
        drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in cell_texts(table):
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console(file=stream, highlight=False)
    if table.title:
        console.print(Text(table.title, style="bold"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))


def table_text(table: Table) -> str:
    """The table as lines of text: title, header, rule, rows, notes; numbers to the right, words left."""
    lines = [list(table.columns), *cell_texts(table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    lines.insert(1, ["-" * width for width in widths])
    right = numeric_columns(table)
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
    percent = measurement.unit == "%"
    text = f"{measurement.value:.{decimals_of([measurement.value], percent=percent)}f}"
    if measurement.unit:
        text += f" {measurement.unit}"
    if measurement.low is not None and measurement.high is not None:
        decimals = decimals_of([measurement.high], percent=percent)
        text += f" (95 % interval {measurement.low:.{decimals}f} to {measurement.high:.{decimals}f})"
    return text


def print_json(record: Any) -> None:
    """Print a record, or a nest of records, as one JSON object on stdout; NaN and infinity become null."""
    print(json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False))
