"""How far a prediction is: a bar on a terminal, a line a minute elsewhere. All of it goes to stderr."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from residuum.errors import UserError
from residuum.inference.paths import STDIN, expand_paths
from residuum.inference.shards import Shard
from residuum.training.progress import PLAIN_LINE_SECONDS

Look = Callable[[int], None]


class Count:
    """How many files there are: found out beside the work, by a thread, and None until then."""

    def __init__(self, paths: Sequence[str], null: bool, shard: Shard) -> None:
        self.total: int | None = None
        self._work = (paths, null, shard)
        if STDIN not in paths:  # which can be read only once
            threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        paths, null, shard = self._work
        try:
            self.total = sum(1 for _ in shard.of(expand_paths(paths, null=null)))
        except (UserError, OSError):  # which the work meets, too, and tells
            return


class Meter:
    """Rate and time left, from the moment when it is first told where the work stands."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._first: tuple[int, float] | None = None

    def line(self, done: int, now: float) -> str:
        """ "1,280 of 1,000,000 files  310 files/s  0:53:42 left", as far as it is known."""
        if self._first is None:
            self._first = (done, now)
        before, began = self._first
        rate = (done - before) / max(now - began, 1e-9)
        total = self._count.total
        if total is not None and done > total:  # files came behind those that were counted
            total = None
        of = "" if total is None else f" of {total:,}"
        speed = f"  {rate:,.{0 if rate >= 10 else 1}f} files/s" if rate else ""
        left = f"  {timedelta(seconds=round((total - done) / rate))} left" if rate and total else ""
        return f"{done:,}{of} files{speed}{left}"


@contextmanager
def shown(count: Count, console: Console) -> Iterator[Look]:
    """A function to call with the number of files that are done, while the block runs."""
    meter, due = Meter(count), time.monotonic() + PLAIN_LINE_SECONDS
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def look(done: int) -> None:
            nonlocal due
            now = time.monotonic()
            line = meter.line(done, now)
            bar.update(task, completed=done, total=count.total, description=line)
            if not console.is_terminal and now >= due:
                due = now + PLAIN_LINE_SECONDS
                console.print(line, highlight=False, markup=False, soft_wrap=True)

        yield look
