"""Rows of a benchmark that is taken in pieces: what was measured, what still fits the time, and the table of it.

A row is measured piece by piece. Every piece that is done is written to one JSON file, which appears whole, so that a
run may end anywhere and the next goes on with the piece after it.
"""

import gc
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from residuum.errors import UserError
from residuum.files import read_json, write_json
from residuum.records import Cell, Table, plain
from residuum.training.interruption import Interrupted

GRACE = 15.0
"""Seconds past the budget that a piece which takes longer than was thought may go on."""

Pieces = Mapping[str, Mapping[str, Any]]
"""The results of a row's pieces that are done, by name, in the order they were measured."""


class MissingError(Exception):
    """What a row needs is not here; the message says what, in one line."""


class OutOfTimeError(BaseException):
    """The budget and its grace are spent. Not an Exception: what is being measured must not take it for a failure."""


@dataclass(frozen=True)
class Piece:
    """What is measured in one go: its name in the row, its estimated seconds, and the function that measures it."""

    name: str
    seconds: float
    measure: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """One line of the table: a figure, and the goal that it is at most (or at least) to be. None: not measured."""

    what: str
    value: float | None
    unit: str
    goal: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def is_reached(self) -> bool:
        assert self.value is not None
        assert self.goal is not None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    @property
    def verdict(self) -> str:
        """In words; nothing where there is no goal."""
        if self.goal is None:
            return ""
        if self.value is None:
            return "not measured"
        if self.is_reached:
            return "reached"
        gap = abs(self.value - self.goal)
        return f"missed by {figure(gap)} {self.unit} ({100 * gap / self.goal:.0f} %)"

    @property
    def goal_text(self) -> str:
        return "" if self.goal is None else f"{'<=' if self.at_most else '>='} {figure(self.goal)} {self.unit}"


@dataclass(frozen=True)
class Row:
    """A question of the benchmark.

    next_piece: from the pieces that are done to the next one, None when there is none left. It may raise MissingError,
    as may the piece. lines: from the pieces that are done to lines of the table.
    """

    name: str
    next_piece: Callable[[Pieces], Piece | None]
    lines: Callable[[Pieces], list[Line]]


def one_by_one(pieces: Sequence[Piece]) -> Callable[[Pieces], Piece | None]:
    """A row's `next_piece` where the pieces are known beforehand."""
    return lambda done: next((piece for piece in pieces if piece.name not in done), None)


def figure(value: float) -> str:
    """A number with three or four digits that count."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.{2 if size >= 1 else 4}f}"


def median_of(pieces: Pieces, *path: str) -> float | None:
    """The median of the list of figures that lies at `path` below the pieces; None where it is not there yet."""
    found: Any = pieces
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return statistics.median(found) if found else None


class Record:
    """The JSON file: a head that says on what was measured, and rows with status, note and pieces.

    Raises UserError where the file has figures that were measured under another head.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self._path = path
        head = plain(head)
        content: dict[str, Any] = read_json(path) if path.exists() else {**head, "rows": {}}
        others = [name for name in head if content.get(name) != head[name]]
        if others and any(row["pieces"] for row in content["rows"].values()):
            name = others[0]
            raise UserError(
                f"{path} was measured with another {name}: {content.get(name)}, not {head[name]}; "
                "choose another file with -o"
            )
        if others:
            content = {**head, "rows": {}}
        self._content = content

    def row(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = self._content["rows"].setdefault(
            name, {"status": "not run", "note": "", "at_least": {}, "pieces": {}}
        )
        return row

    def pieces(self, name: str) -> Pieces:
        return dict(self.row(name)["pieces"])

    def forget(self, name: str) -> None:
        self._content["rows"].pop(name, None)

    def add(self, name: str, piece: str, result: Mapping[str, Any], seconds: float) -> None:
        self.row(name)["pieces"][piece] = {**plain(result), "took_s": round(seconds, 3)}
        self.write()

    def remember_it_takes(self, name: str, piece: str, seconds: float) -> None:
        """A piece was cut off after so many seconds: it takes longer."""
        self.row(name)["at_least"][piece] = round(seconds, 3)

    def mark(self, name: str, status: str, note: str = "") -> None:
        self.row(name).update(status=status, note=note)
        self.write()

    def write(self) -> None:
        write_json(self._path, self._content)


class Budget:
    """The time this call may take, in seconds, counted from `started` on the monotonic clock."""

    def __init__(self, seconds: float, started: float) -> None:
        self.seconds, self._started = seconds, started

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self._started)

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Raise OutOfTimeError in the block when the budget and its grace are spent."""

        def ring(number: int, frame: FrameType | None) -> None:
            raise OutOfTimeError

        before = signal.signal(signal.SIGALRM, ring)
        timer = signal.setitimer(signal.ITIMER_REAL, max(self.left + GRACE, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, *timer)


def measure_rows(rows: Sequence[Row], record: Record, budget: Budget, say: Callable[[str], None]) -> None:
    """Measure what is left of the rows, those that failed before last. Raises Interrupted and KeyboardInterrupt.

    A row that fails, lacks something or no longer fits the budget is recorded as that, and the next has its turn.
    """
    for row in sorted(rows, key=lambda row: record.row(row.name)["status"] == "failed"):
        if record.row(row.name)["status"] != "finished":
            try:
                _measure_row(row, record, budget, say)
            except (KeyboardInterrupt, Interrupted):
                record.mark(row.name, "unfinished", "stopped by hand")
                raise
            say(_state(row, record))
            if not _gpu_answers():
                return say("the GPU no longer answers this process; start the same command again")
    return None


def _state(row: Row, record: Record) -> str:
    state = record.row(row.name)
    return f"{row.name}: {state['status']}{': ' if state['note'] else ''}{state['note']}"


def _gpu_answers() -> bool:
    """False after a fault on the GPU that a process does not recover from: every later row would fail for it."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _measure_row(row: Row, record: Record, budget: Budget, say: Callable[[str], None]) -> None:
    record.mark(row.name, "running")
    try:
        while (piece := row.next_piece(record.pieces(row.name))) is not None:
            needed = max(piece.seconds, 1.2 * record.row(row.name)["at_least"].get(piece.name, 0.0))
            if needed > budget.left:
                note = f"{piece.name} needs about {needed:.0f} s, {max(budget.left, 0):.0f} s were left"
                return record.mark(row.name, "unfinished", note)
            _measure_piece(row, piece, record, budget, say)
    except MissingError as missing:
        record.mark(row.name, "missing", str(missing))
    except OutOfTimeError:
        record.mark(row.name, "unfinished", "the time was spent before its end")
    except Interrupted:
        raise
    except Exception as error:
        record.row(row.name)["traceback"] = traceback.format_exc()[-4000:]
        record.mark(row.name, "failed", " ".join(f"{type(error).__name__}: {error}".split())[:300])
    else:
        record.row(row.name).pop("traceback", None)
        record.mark(row.name, "finished")
    return None


def _measure_piece(row: Row, piece: Piece, record: Record, budget: Budget, say: Callable[[str], None]) -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    start = time.monotonic()
    try:
        with budget.enforced():
            result = piece.measure()
    except OutOfTimeError:
        record.remember_it_takes(row.name, piece.name, time.monotonic() - start)
        raise
    record.add(row.name, piece.name, result, time.monotonic() - start)
    say(f"{row.name}: {piece.name} took {time.monotonic() - start:.1f} s, {budget.left:.0f} s are left")


def table(title: str, rows: Sequence[Row], record: Record) -> Table:
    """What was measured so far, beside the goals."""
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        for line in row.lines(record.pieces(row.name)):
            measured = "-" if line.value is None else f"{figure(line.value)} {line.unit}".strip()
            lines.append((row.name, line.what, measured, line.goal_text, line.verdict, line.note))
    statuses = {row.name: record.row(row.name)["status"] for row in rows}
    notes = [_state(row, record) for row in rows if statuses[row.name] not in ("finished", "not run")]
    untouched = [name for name, status in statuses.items() if status == "not run"]
    notes += [f"not run: {', '.join(untouched)}"] if untouched else []
    return Table(title, ("row", "what", "measured", "goal", "verdict", "note"), tuple(lines), tuple(notes))
