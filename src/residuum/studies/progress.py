"""How far a study is: a bar on a terminal, a line a minute elsewhere. All of it goes to stderr."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from residuum.errors import listed
from residuum.studies.engine import Prepared
from residuum.studies.members import Member, is_made
from residuum.training.progress import PLAIN_LINE_SECONDS
from residuum.training.run_folder import RunFolder

_LEAST_TOLD_BY = 1e-3  # of the work: less does not tell how long the rest takes
_NAMED = 3  # members under way
_ALMOST = 0.98  # of a member whose last epoch is recorded: the final measurement is to come


@contextmanager
def shown(prepared: Prepared, console: Console) -> Iterator[Callable[[Sequence[Path]], None]]:
    """A function to call with the folders that are under way: it shows where the study stands, while the block runs."""
    began, last, made = time.monotonic(), -PLAIN_LINE_SECONDS, made_of(prepared)
    first = share_done(prepared, made)
    columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)

        def look(now: Sequence[Path]) -> None:
            nonlocal last, made
            made = made_of(prepared, made)
            share, seconds = share_done(prepared, made), time.monotonic() - began
            left = seconds * (1 - share) / (share - first) if share - first > _LEAST_TOLD_BY else None
            line = _line(prepared, now, len(made), left)
            bar.update(task, completed=share, description=line)
            if not console.is_terminal and time.monotonic() - last >= PLAIN_LINE_SECONDS:
                last = time.monotonic()
                console.print(f"{share:4.0%}  {line}", highlight=False, markup=False, soft_wrap=True)

        yield look


def _line(prepared: Prepared, now: Sequence[Path], done: int, left: float | None) -> str:
    """ "12 of 24 members; under way: plain56 (seed 1), resnet56 (seed 1); 0:07:30 left"."""
    folders = {folder: member for member, folder in prepared.members}
    under_way = listed([f"{folders[one].arm} (seed {folders[one].seed})" for one in now], _NAMED)
    soon = "" if left is None else f"; {timedelta(seconds=round(left))} left"
    return f"{done} of {len(folders)} members; under way: {under_way}{soon}"


def made_of(prepared: Prepared, before: frozenset[Path] = frozenset()) -> frozenset[Path]:
    """The folders of members that are made; those made `before` are not looked at again."""
    wanting = [folder for member, folder in prepared.members if folder not in before and not is_made(member, folder)]
    return frozenset(folder for _, folder in prepared.members).difference(wanting)


def share_done(prepared: Prepared, made: frozenset[Path]) -> float:
    """The share in [0, 1] of the study's work that is done: all of the `made`, and part of others."""
    members = {folder: member for member, folder in prepared.members}
    work = {folder: prepared.work_of(member) for folder, member in members.items()}
    if not any(work.values()):
        work = dict.fromkeys(work, 1)
    parts = {folder: 1.0 if folder in made else _share_made(member, folder) for folder, member in members.items()}
    done = sum(work[folder] * part for folder, part in parts.items())
    return done / sum(work.values())


def _share_made(member: Member, folder: Path) -> float:
    run = RunFolder(folder)
    lines = run.read_metrics() if member.run is not None else []
    if not lines:
        return 0.0
    assert member.run is not None
    steps = member.run.total_iterations(round(lines[0]["step"]))
    return _ALMOST * min(1.0, lines[-1]["step"] / steps)
