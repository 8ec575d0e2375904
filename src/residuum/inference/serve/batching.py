"""Images of many requests computed together: one thread a model, which takes all that waits as soon as it is free."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]  # (K,)


class Computed(NamedTuple):
    """An image's probabilities (K,); seconds that it waited and that its batch was computed in; how many were in it."""

    probabilities: Row
    waited: float
    computed: float
    batch: int


@dataclass(frozen=True)
class _Job:
    view: NDArray[np.uint8]
    future: "asyncio.Future[Computed]"
    deadline: float
    since: float

    def is_wanted(self, now: float) -> bool:
        return not self.future.done() and now < self.deadline


@dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    future: "asyncio.Future[Any]"


class Batcher:
    """Computes views in batches of at most `most`, in a thread of its own, in the order of their coming.

    There is no waiting for a batch to fill: what comes while one is computed is the next. An image whose future was
    cancelled, or whose deadline has passed, is dropped before computing. Made and used within a running event loop.
    """

    def __init__(
        self,
        probabilities: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        most: int,
        told: Callable[[int, float], None],
    ) -> None:
        self._probabilities, self._most, self._told = probabilities, most, told
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="residuum-compute", daemon=True)
        self._thread.start()

    def submit(self, view: NDArray[np.uint8], deadline: float) -> "asyncio.Future[Computed]":
        """Have a view (S, S, C) computed before `deadline`, a time of `time.monotonic`."""
        future: asyncio.Future[Computed] = self._loop.create_future()
        with self._changed:
            self._jobs.append(_Job(view, future, deadline, time.monotonic()))
            self._changed.notify()
        return future

    def call(self, function: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Have something else done in the model's thread, between two batches."""
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            self._calls.append(_Call(function, future))
            self._changed.notify()
        return future

    async def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._calls or self._closed)
                if not self._jobs and not self._calls:
                    return
                call = self._calls.popleft() if self._calls else None
                batch = self._taken()
            if call is not None and not call.future.done():
                self._do(call)
            if batch:
                self._compute(batch)

    def _taken(self) -> list[_Job]:
        """The oldest jobs that are still wanted, as many as make a batch."""
        batch: list[_Job] = []
        now = time.monotonic()
        while self._jobs and len(batch) < self._most:
            job = self._jobs.popleft()
            if job.is_wanted(now):
                batch.append(job)
        return batch

    def _compute(self, batch: Sequence[_Job]) -> None:
        start = time.monotonic()
        try:
            rows = self._probabilities(np.stack([job.view for job in batch]))
        except Exception as error:  # of any engine: it is the requests' answer, and the thread goes on
            self._deliver([(job.future, error) for job in batch])
            return
        seconds = time.monotonic() - start
        answers = [
            (job.future, Computed(row, start - job.since, seconds, len(batch)))
            for job, row in zip(batch, rows, strict=True)
        ]
        self._loop.call_soon_threadsafe(self._told, len(batch), seconds)
        self._deliver(answers)

    def _do(self, call: _Call) -> None:
        try:
            found = call.function()
        except Exception as error:
            found = error
        self._deliver([(call.future, found)])

    def _deliver(self, answers: "Sequence[tuple[asyncio.Future[Any], Any]]") -> None:
        self._loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: "Sequence[tuple[asyncio.Future[Any], Any]]") -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
