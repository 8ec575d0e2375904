"""Prediction of very many files into one file of rows, which a killed job goes on with as if nothing had happened."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from residuum.errors import UserError, counted
from residuum.inference.deployed import deploy
from residuum.inference.exported import export_folder
from residuum.inference.journal import Journal, Progress, read_progress
from residuum.inference.paths import expand_paths
from residuum.inference.predict import Prediction, predict
from residuum.inference.rows import Rows, check_suffix, rows_for, write_parquet
from residuum.inference.shards import Shard
from residuum.model_config import model_folder

COMMIT_SECONDS = 1.0
"""Of work that a kill may cost: a record flushed to the disk more often would be waited for."""
_NAMED = 10  # unreadable files
_OF_A_MODEL = ("config.", "model.", "preprocessing.", "pytorch_model.")
_FORMAT = 1


@dataclass(frozen=True)
class How:
    """What computes, and how many at once: as for `predict`, and `deploy`'s engine."""

    batch_size: int = 64
    workers: int | None = None
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Job:
    """A model, files as `expand_paths` takes them, and where the rows go: `out`, or of a share `shard.file(out)`."""

    model: Path
    paths: tuple[str, ...]
    out: Path
    top: int = 3
    features: bool = False
    null: bool = False
    shard: Shard = field(default_factory=Shard)
    how: How = field(default_factory=How)

    @property
    def file(self) -> Path:
        return self.shard.file(self.out)


@dataclass(frozen=True)
class Outcome:
    """What a job came to, all its starts together. before: how many rows there were at this start."""

    file: Path
    engine: str
    rows: int
    before: int
    unreadable: int
    named: tuple[str, ...]


Look = Callable[[int], None]
"""Told how many rows there are."""


def quietly(rows: int) -> None:
    """Look at nothing."""


def predict_into(job: Job, *, overwrite: bool = False, look: Look = quietly) -> Outcome:
    """Predict all files of a job, or those that are left of it, and write a row for each, in their order.

    Killed at any moment and called again it writes the rows that it would have written. What was done before is told
    by the names of the files, in their order, and not by what is in them: names that come behind may change meanwhile.
    Raises UserError for rows of another model, of other options or of other files, unless told to `overwrite` them,
    and for what `deploy` and `expand_paths` refuse.
    """
    suffix = check_suffix(job.file)
    refuse_other_shares(job)
    paths = job.shard.of(expand_paths(job.paths, null=job.null))
    identity = identity_of(job)
    deployed = deploy(job.model, engine=job.how.engine, device=job.how.device, precision=job.how.precision)
    top = min(job.top, len(deployed.classes))
    rows = rows_for(suffix, top, job.features)
    size, workers = job.how.batch_size, job.how.workers
    # Of the files that are not passed by first: nothing is read before a prediction is asked for.
    predictions = predict(deployed, paths, top=top, batch_size=size, workers=workers, features=job.features)
    with Journal(job.file, identity, assembled=rows.ends_as_parquet).opened(overwrite=overwrite) as journal:
        before, names = journal.progress.rows, _Names()
        _pass_by(paths, journal, names)
        if not journal.progress.complete:
            journal.progress = replace(journal.progress, engine=_told(journal.progress, deployed.engine))
            _write(journal, rows, _blocks(predictions, size), names, look)
            if journal.assembled:
                write_parquet(journal.rows, journal.out)
            journal.commit(replace(journal.progress, complete=True))
        done = journal.progress
    return Outcome(job.file, done.engine, done.rows, before, done.unreadable, done.named)


def _told(before: Progress, engine: str) -> str:
    """What computed the rows, and since when, where it was not always the same."""
    if not before.rows:
        return engine
    is_same = before.engine.endswith(engine)
    return before.engine if is_same else f"{before.engine}, and from file {before.rows + 1:,} on {engine}"


def _blocks(predictions: Iterator[Prediction], size: int) -> Iterator[list[Prediction]]:
    while block := list(islice(predictions, size)):
        yield block


def _write(journal: Journal, rows: Rows, blocks: Iterator[list[Prediction]], names: "_Names", look: Look) -> None:
    """Write all blocks; what is written counts every second, and at the end."""
    progress, due = journal.progress, time.monotonic() + COMMIT_SECONDS
    if not progress.size:
        progress = replace(progress, size=journal.write(rows.head))
    for block in blocks:
        progress = counted_on(progress, block, journal.write(rows.block(block)))
        names.add(prediction.path for prediction in block)
        look(progress.rows)
        if time.monotonic() >= due:
            journal.commit(replace(progress, files=names.digest))
            due = time.monotonic() + COMMIT_SECONDS
    journal.commit(replace(progress, files=names.digest))


def counted_on(progress: Progress, block: Sequence[Prediction], size: int = 0) -> Progress:
    """What it is once a block more is done, of which the rows take `size` bytes."""
    bad = [f"{prediction.path}: {prediction.error}" for prediction in block if prediction.error is not None]
    return replace(
        progress,
        rows=progress.rows + len(block),
        size=progress.size + size,
        unreadable=progress.unreadable + len(bad),
        named=(*progress.named, *bad)[:_NAMED],
    )


class _Names:
    """A digest of names of files, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, paths: Iterator[Path]) -> int:
        """How many paths there were."""
        count = 0
        for path in paths:
            self._hash.update(os.fsencode(path) + b"\0")
            count += 1
        return count

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _pass_by(paths: Iterator[Path], journal: Journal, names: _Names) -> None:
    """Leave behind the files that are done. Raises UserError where they are not those that rows were written for."""
    done = journal.progress
    count = names.add(islice(paths, done.rows))
    if count < done.rows or (done.rows and names.digest != done.files):
        raise UserError(
            f"the first {counted(done.rows, 'file')} of {journal.out} are no longer those found now; give the same "
            "files, name another --out, or begin anew with --overwrite"
        )
    if done.complete and next(paths, None) is not None:
        raise UserError(
            f"{journal.out} is complete with {counted(done.rows, 'file')}, and now there are more; name another --out "
            "for those, or begin anew with --overwrite"
        )


# What a job is


def identity_of(job: Job) -> dict[str, Any]:
    """What decides the rows, but for the files. Raises UserError where there is no model."""
    return {
        "format": _FORMAT,
        "model": _fingerprint(export_folder(job.model) or model_folder(job.model)),
        "top": job.top,
        "features": job.features,
        "precision": job.how.precision,
        "shard": str(job.shard),
    }


def _fingerprint(folder: Path) -> str:
    """Of the files of a model, wherever they lie."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_OF_A_MODEL) and path.is_file():
            with path.open("rb") as file:
                found.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "blake2b").digest())
    return found.hexdigest()


# Shares


def refuse_other_shares(job: Job) -> None:
    """Raise UserError where the files were begun to be divided into another number of shares."""
    count = begun_shares(job.out)
    if job.shard.count > 1 and count not in (None, job.shard.count):
        raise UserError(
            f"{job.out.name} was begun in {count} shares, not {job.shard.count}; take {count}, or name another --out"
        )


def begun_shares(out: Path) -> int | None:
    """Into how many shares the rows of `out` are divided already, as far as the records beside it tell."""
    of_shares = re.compile(rf"{re.escape(out.stem)}-[0-9]+-of-([0-9]+){re.escape(out.suffix)}\.job")
    names = os.listdir(out.parent) if out.parent.is_dir() else []
    return next((int(found[1]) for name in names if (found := of_shares.fullmatch(name))), None)


def rows_done(job: Job) -> int:
    """How many rows the record of a job counts, which another process may be writing."""
    try:
        return read_progress(job.file).rows
    except UserError:
        return 0
