"""Worker processes that read ahead of the one that trains, and how they are started, watched and stopped."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from residuum.distributed import World
from residuum.errors import UserError
from residuum.hardware import keep_freed_memory

READ_AHEAD = 2
"""Requests a worker that are answered before they are asked for."""

Progress = Callable[[int, int], None]
"""Called with the number of images read so far and the number of all."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LoaderSettings:
    """How images are fetched; nothing here changes which images a run sees, but `seed`.

    kind: "memory" or "file", or "auto" for memory where the images fit; workers: processes that decode, 0 for
    this one; strict: raise UserError at the first bad file instead of leaving it out.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    world: World = field(default_factory=World)
    kind: Literal["auto", "memory", "file"] = "auto"
    seed: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("auto", "memory", "file"):
            raise UserError(f"loader {self.kind!r}; allowed: auto, memory, file")
        if self.workers < 0:
            raise UserError(f"{self.workers} workers; 0 decodes in the main process")


class WorkerDiedError(UserError):
    """A process that decodes images is gone: killed, by a signal or for want of memory."""


class Pool(Generic[Asked, Answer]):
    """Worker processes that stay from one reading to the next; none with `workers=0`.

    source: what each of them holds; `source[request]` is the answer to a request.
    """

    def __init__(self, source: Dataset[Answer], settings: LoaderSettings) -> None:
        self._requests: list[Asked] = []
        self._loader: DataLoader[Answer] = DataLoader(
            source,
            sampler=self._requests,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=settings.workers,
            worker_init_fn=_start_worker,
            persistent_workers=settings.workers > 0,
            prefetch_factor=READ_AHEAD if settings.workers else None,
            generator=torch.Generator(),  # else every epoch would draw from the global one
        )

    def read(self, requests: Sequence[Asked]) -> Iterator[Answer]:
        """The answer to each request, in order. One iteration at a time. Raises WorkerDiedError."""
        self._requests[:] = requests
        try:
            with _quiet_about_children():
                answers = iter(self._loader)
            yield from answers
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not _tells_of_a_dead_worker(error):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise WorkerDiedError(f"a worker process died ({reason}); if memory ran out, lower -j") from error


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Not so an error raised inside of a worker, which comes with its traceback as text."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    return "in DataLoader worker process" not in str(error)


@contextmanager
def _quiet_about_children() -> Iterator[None]:
    """Undo PyTorch's SIGCHLD handler, which raises in the midst of whatever runs, a checkpoint's writing say.

    A dead worker is then noticed, within seconds, where its next batch is waited for.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _as_it_is(answer: Any) -> Any:
    return answer


def _start_worker(_: int) -> None:
    """Ctrl-C reaches every process of the terminal: the main one decides, and needs its workers till then."""
    keep_freed_memory()
    signal.set_wakeup_fd(-1)  # a worker's signals are not the main process's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # torchrun signals the whole group of each process that it started
