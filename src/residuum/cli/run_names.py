"""What runs are called beside one another, in tables and titles."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from residuum.cli.run_records import RunRecord
from residuum.report.names import isolated

Runs = Mapping[str, RunRecord]
"""Runs by what they are called, in the order given."""


def named(records: Sequence[RunRecord]) -> Runs:
    """The runs by name; one that is given twice is there once."""
    names = names_apart([record.path for record in records])
    return {isolated(name): record for name, record in zip(names, records, strict=True)}


def names_apart(paths: Sequence[Path]) -> list[str]:
    """For each path as many of its last parts as tell all of them apart: "run", or "A/run" and "B/run"."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        tails = ["/".join(one[-depth:]) for one in parts]
        if len(set(tails)) == len(set(parts)):
            return tails
    return [str(path) for path in paths]


def called_by_name(runs: Runs) -> list[RunRecord]:
    """The runs for a table that calls each by its path."""
    return [replace(record, path=Path(name)) for name, record in runs.items()]


def prefix(name: str, runs: Runs) -> str:
    """What a sentence on one run begins with: its name where there are several."""
    return f"{name}: " if len(runs) > 1 else ""


def in_a_row(names: Iterable[str], most: int = 3) -> str:
    """The names for a title, each once: "a, b and c", or "a, b, c and 2 more"."""
    every = list(dict.fromkeys(names))
    if len(every) > most:
        return f"{', '.join(every[:most])} and {len(every) - most} more"
    return " and ".join(part for part in (", ".join(every[:-1]), every[-1]) if part)
