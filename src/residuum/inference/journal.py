"""A file of rows that only grows, and beside it a record of how far it is whole.

The record is written after the rows that it counts are on the disk. What a killed process left behind them, a torn row
or several whole ones, is cut off when another takes the file up: so none is there twice, and none is missing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from residuum.errors import UserError, in_words, printable
from residuum.files import read_json, sweep_of, write_json

_RECORD, _BLOCKS = ".job", ".rows"
_ANEW = "begin anew with --overwrite"


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    rows: how many files are done; size: bytes of their rows; unreadable: how many of the files were, and `named` the
    first of these with the reasons; files: a digest of the names of those that are done; engine: what computed them, in
    words; complete: there are no more.
    """

    rows: int = 0
    size: int = 0
    unreadable: int = 0
    named: tuple[str, ...] = ()
    files: str = ""
    engine: str = ""
    complete: bool = False


class Journal:
    """The rows of one job.

    identity: what decides them, JSON by name in words; a file begun for other values is refused. assembled: the rows
    lie beside `out`, which is made of them once they are complete.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], *, assembled: bool) -> None:
        self.out = out
        self.assembled = assembled
        self.rows = out.with_name(out.name + _BLOCKS) if assembled else out
        self.record = out.with_name(out.name + _RECORD)
        self.identity = dict(identity)
        self.progress = Progress()
        self._file: IO[bytes]

    @contextmanager
    def opened(self, *, overwrite: bool = False) -> Iterator[Self]:
        """Take the rows up where they are whole, or begin them; for one process at a time.

        Raises UserError for rows of another job, for what is no longer as it was left, and where another process is
        writing.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite and not self.rows.exists():
            self._left(0)  # what is refused leaves no empty file
        try:
            with self.rows.open("ab") as self._file:
                self._take_up(overwrite)
                yield self
        finally:
            if self.assembled and self.progress.complete:
                self.rows.unlink(missing_ok=True)

    def _take_up(self, overwrite: bool) -> None:
        _lock(self._file, self.out)
        for path in (self.out, self.record):
            sweep_of(path)
        if overwrite and self.assembled:
            self.out.unlink(missing_ok=True)
        self.progress = Progress() if overwrite else self._left(self.rows.stat().st_size)
        if not self.progress.complete:
            self._file.truncate(self.progress.size)
            self.commit(self.progress)

    def write(self, block: bytes) -> int:
        """Add a block of rows, or the head; how many bytes it takes. It counts once it is committed."""
        return self._file.write(block)

    def commit(self, progress: Progress) -> None:
        """See to it that all that was written is on the disk, then say so."""
        self._file.flush()
        os.fsync(self._file.fileno())
        write_json(self.record, {"job": self.identity, **asdict(progress)})
        self.progress = progress

    def _left(self, size: int) -> Progress:
        """How far another start came, which left rows of `size` bytes."""
        if not self.record.exists():
            if size or (self.assembled and self.out.exists()):
                raise UserError(f"{self.out} is there already, and is of no job; name another --out, or {_ANEW}")
            return Progress()
        progress = read_progress(self.out, self.identity if size or self._is_assembled() else None)
        if self.assembled and progress.complete:
            return progress if self._is_assembled() else Progress()
        if 0 < size < progress.size:
            raise UserError(f"{self.rows} is shorter than it was left; put it back as it was, or {_ANEW}")
        return progress if size else Progress()

    def _is_assembled(self) -> bool:
        return self.assembled and self.out.exists()


def read_progress(out: Path, identity: Mapping[str, Any] | None = None) -> Progress:
    """What the record beside `out` says. Raises UserError for one that is damaged, and of a job of other `identity`."""
    record = out.with_name(out.name + _RECORD)
    try:
        content = read_json(record)
        job = {**content.pop("job")}
        progress = Progress(**{**content, "named": tuple(map(str, content["named"]))})
        _check(progress)
    except (UserError, AttributeError, KeyError, TypeError):
        raise UserError(f"{record} is damaged; name another --out, or {_ANEW}") from None
    for name, value in (identity or {}).items():
        if value != job.get(name):
            _refuse(out, name, job.get(name), value)
    return progress


def _check(progress: Progress) -> None:
    """Raise TypeError for values of other kinds than we write."""
    counts = (progress.rows, progress.size, progress.unreadable)
    are_counts = all(type(count) is int and count >= 0 for count in counts)
    are_words = all(isinstance(words, str) for words in (progress.files, progress.engine))
    if not (are_counts and are_words and isinstance(progress.complete, bool)):
        raise TypeError


def _refuse(out: Path, name: str, was: object, now: object) -> None:
    values = "" if name == "model" else f" {printable(str(was), 40)}, not {now}"
    raise UserError(f"{out} was begun with another {name}{':' * bool(values)}{values}; name another --out, or {_ANEW}")


def _lock(file: IO[bytes], out: Path) -> None:
    if os.name != "posix":  # Windows has no such lock
        return
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is writing {out}; wait for it, or name another --out") from None
    except OSError as error:
        raise UserError(f"cannot lock {out} ({in_words(error)}); name a file on another disk with --out") from None
