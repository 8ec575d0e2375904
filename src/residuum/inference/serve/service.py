"""What a server is made of, apart from HTTP: models, each with its thread, the processes that decode, the limits."""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from residuum.errors import UserError, printable
from residuum.inference.serve.batching import Batcher
from residuum.inference.serve.decoders import Decoders
from residuum.inference.serve.gate import Gate
from residuum.inference.serve.metrics import Metrics
from residuum.inference.serve.models import How, Named, Opened, put_to_work
from residuum.inference.serve.settings import Settings
from residuum.inference.serve.stamps import Stamp, stamp

_LOOK = 0.05  # seconds between looks whether a model is still in use


@dataclass
class Served:
    """A model in service: what it is opened from, its thread, and how its last reload went.

    tried: the files as they were when it was last opened, or was to be. users: how many requests are at it.
    """

    named: Named
    opened: Opened
    tried: Stamp
    since: float
    batcher: Batcher | None = None
    refused: bool = False
    users: int = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """While a request is at it, its thread stays, though another model may have taken its place."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def retire(self) -> None:
        """Answer those who are still at it, and end the thread."""
        while self.users:
            await asyncio.sleep(_LOOK)
        await self.thread.close()

    @property
    def thread(self) -> Batcher:
        assert self.batcher is not None, "the service has not started"
        return self.batcher


class Service:
    """Models at work. Opening them may take long and raises UserError; the rest runs in an event loop."""

    def __init__(self, models: Sequence[Named], how: How, settings: Settings) -> None:
        self.settings, self._how = settings, how
        self.models = {named.name: self._served(named, stamp(named.path)) for named in models}
        self.gate, self.metrics, self.decoders = Gate(settings), Metrics(), Decoders(settings)
        self.ready = self.draining = False
        self._watch: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._opening, self._reloading = ThreadPoolExecutor(1, "residuum-open"), asyncio.Lock()

    def _served(self, named: Named, before: Stamp) -> Served:
        return Served(named, put_to_work(named.path, self._how), before, time.time())

    async def start(self) -> None:
        """Once; again it is nothing. Raises UserError where no process that decodes can be started."""
        if self.ready:
            return
        await self.decoders.start()
        for served in self.models.values():
            served.batcher = self._batcher(served.opened)
        self.metrics.watch(self.gate, self.decoders)
        self.ready = True
        if self.settings.watch:
            self._watch = asyncio.create_task(self._watch_files())

    async def close(self) -> None:
        """Finish what is being computed, end processes and threads."""
        self.ready = False
        if self._watch is not None:
            self._watch.cancel()
        await self.decoders.close()
        await asyncio.gather(*self._retiring, *(served.retire() for served in self.models.values()))
        self._opening.shutdown(wait=False, cancel_futures=True)

    def _batcher(self, opened: Opened) -> Batcher:
        return Batcher(opened.deployed.probabilities, self.settings.batch, self.metrics.computed)

    async def _watch_files(self) -> None:
        """Open a model anew once its files have changed and then stayed as they are from one look to the next."""
        before = {name: served.tried for name, served in self.models.items()}
        while True:
            await asyncio.sleep(self.settings.watch)
            for name in self.models:
                now = await asyncio.to_thread(stamp, self.models[name].named.path)
                if now == before[name] != self.models[name].tried:
                    await self.reload(name)
                before[name] = now

    async def reload(self, name: str) -> None:
        """Open a model anew, in the old one's place; where it is bad the old one stays, and stderr says so."""
        async with self._reloading:  # of two at once each retires the one before
            await self._reload(name, self.models[name])

    async def _reload(self, name: str, served: Served) -> None:
        before = await asyncio.to_thread(stamp, served.named.path)  # what changes from here on is tried again
        try:
            work = asyncio.get_running_loop().run_in_executor(self._opening, self._served, served.named, before)
            new = await work
        except Exception as error:  # whatever a file may cause: the old model is good
            served.refused, served.tried = True, before
            self.metrics.reloaded(name, "refused")
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            _say(f"{name}: the new model is refused, the old one stays: {reason}")
            return
        new.batcher = self._batcher(new.opened)
        self.models[name] = new
        self.metrics.reloaded(name, "done")
        _say(f"{name}: the new model is in service ({new.opened.deployed.engine})")
        self._retiring.add(retiring := asyncio.create_task(served.retire()))
        retiring.add_done_callback(self._retiring.discard)

    async def reload_all(self) -> None:
        for name in list(self.models):
            await self.reload(name)


def _say(line: str) -> None:
    print(printable(line, longest=None), file=sys.stderr, flush=True)
