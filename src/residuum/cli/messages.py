"""What every verb says beside its result: on stderr, so that the result can be piped on."""

import sys
from collections.abc import Sequence

NAMED = 10


def print_notes(notes: Sequence[str]) -> None:
    """One line a note."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def print_first(kind: str, lines: Sequence[str], total: int | None = None) -> None:
    """The first ten lines of a long list, then how many more there are (`total`, where not all are given)."""
    for line in lines[:NAMED]:
        print(f"{kind}: {line}", file=sys.stderr)
    beyond = (len(lines) if total is None else total) - min(len(lines), NAMED)
    if beyond:
        print(f"{kind}: {beyond:,} more", file=sys.stderr)
