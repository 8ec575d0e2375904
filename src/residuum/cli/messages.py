"""What every verb says beside its result: on stderr, so that the result can be piped on.

Names of files and classes are foreign text: what in them would command a terminal is shown escaped.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from residuum.errors import printable

if TYPE_CHECKING:
    from residuum.records import Cell, Table

NAMED = 10


def print_notes(notes: Sequence[str]) -> None:
    """One line a note."""
    for note in notes:
        print(f"note: {_one_line(note)}", file=sys.stderr)


def print_first(kind: str, lines: Sequence[str], total: int | None = None) -> None:
    """The first ten lines of a long list, then how many more there are (`total`, where not all are given)."""
    for line in lines[:NAMED]:
        print(f"{kind}: {_one_line(line)}", file=sys.stderr)
    beyond = (len(lines) if total is None else total) - min(len(lines), NAMED)
    if beyond:
        print(f"{kind}: {beyond:,} more", file=sys.stderr)


def printable_table(table: "Table") -> "Table":
    """The table with its words escaped."""
    rows = tuple(tuple(_printable_cell(cell) for cell in row) for row in table.rows)
    return replace(table, title=_one_line(table.title), rows=rows, notes=tuple(map(_one_line, table.notes)))


def _printable_cell(cell: "Cell") -> "Cell":
    return _one_line(cell) if isinstance(cell, str) else cell


def _one_line(text: str) -> str:
    return printable(text, longest=None)
