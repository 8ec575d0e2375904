"""What a person sees while training: a live bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

REFRESH_SECONDS = 0.2
PLAIN_LINE_SECONDS = 60.0


@dataclass(frozen=True)
class Status:
    """Where training stands: the epoch (from 1) and the averages over what it has seen of it; accuracy in %."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None


class Reporter:
    """Shows reading, steps and epochs. Cheap to call at every step: it draws at most five times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._interval = REFRESH_SECONDS if console.is_terminal else PLAIN_LINE_SECONDS
        self._draw: Callable[[int, str], None] = lambda done, text: None
        self._due = 0.0
        self._total = self._first = self._images = 0
        self._started = time.monotonic()

    def line(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def reading(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A function to call with (images read, of how many) while `what` is read."""
        with self._bar(f"reading {what}") as draw:

            def show(done: int, total: int) -> None:
                self._total = total
                if self._is_due() and done < total:
                    draw(done, f"reading {what}")

            yield show

    @contextmanager
    def training(self, total_steps: int, first_step: int) -> Iterator[None]:
        """Show `step` calls for as long as the block runs."""
        self._total, self._first, self._images = total_steps, first_step, 0
        self._started = time.monotonic()
        with self._bar("starting") as self._draw:
            yield

    def step(self, step: int, images: int, ask: Callable[[], Status]) -> None:
        """Account for `images` more images; `step` updates are done. `ask` is called when something is drawn."""
        self._images += images
        if not self._is_due():
            return
        status = ask()
        elapsed = max(time.monotonic() - self._started, 1e-9)
        left = timedelta(seconds=round(elapsed / max(step - self._first, 1) * (self._total - step)))
        accuracy = "" if status.accuracy is None else f"  accuracy {status.accuracy:.1f} %"
        epoch = f"epoch {status.epoch}/{status.epochs}  loss {status.loss:.3f}{accuracy}"
        self._draw(step, f"{epoch}  {self._images / elapsed:,.0f} images/s  {left} left")

    def epoch(self, record: Mapping[str, Any], epochs: int, watched: str) -> None:
        """Print the line of a finished epoch: a record of `metrics.jsonl`, measured on the split `watched`."""
        parts = [f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}", f"lr {record['lr']:.4f}"]
        parts.append(f"train loss {record['train_loss']:.3f}")
        if record["train_error"] is not None:
            parts.append(f"error {record['train_error']:5.2f} %")
        if "val_loss" in record:
            parts.append(f"{watched} loss {record['val_loss']:.3f}")
        if "val_error" in record:
            parts.append(f"error {record['val_error']:5.2f} %")
        if "val_map" in record:
            parts.append(f"mean average precision {record['val_map']:5.2f} %")
        parts.append(f"{record['images'] / max(record['seconds'], 1e-3):,.0f} images/s")
        self.line("  ".join(parts))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + self._interval
        return True

    @contextmanager
    def _bar(self, text: str) -> Iterator[Callable[[int, str], None]]:
        """A function (done, text) that moves a bar on a terminal and prints a line elsewhere."""
        if not self._console.is_terminal:
            self._due = time.monotonic() + self._interval
            yield lambda done, text: self.line(f"{done}/{self._total}  {text}")
            return
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(text, total=None)
            yield lambda done, text: progress.update(task, completed=done, total=self._total, description=text)
