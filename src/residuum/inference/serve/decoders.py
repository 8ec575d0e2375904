"""Processes that decode images for the server; one that dies or hangs is replaced, its image answered with an error."""

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, printable
from residuum.inference.serve.decoder import READY
from residuum.inference.serve.settings import MIB, Settings

View = NDArray[np.uint8]  # (S, S, C)
_NAME = "image"
_LATE = 1.0  # seconds past its own alarm after which a process is thought to hang
_START = 60.0  # seconds that a process may take to be ready
_AGAIN = 1.0  # seconds before another attempt to start one
_WAY_OUT = "free memory, start fewer with -j, or install residuum again"
_SOON = 0.5  # of the time to decode in, before which a process that ends was ended by something else than its alarm


class _EndedError(Exception):
    """A process ended, and it may not have been its image's fault."""


class Decoders:
    """A fixed number of processes, each of which decodes one image at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: asyncio.Queue[Process] = asyncio.Queue()
        self._alive: set[Process] = set()
        self._tasks: set[asyncio.Task[View] | asyncio.Task[None]] = set()
        self.replaced = 0

    async def start(self) -> None:
        """Raises UserError where no process can be started."""
        try:
            for process in await asyncio.gather(*(self._started() for _ in range(self._settings.decoders))):
                self._idle.put_nowait(process)
        except (OSError, EOFError, TimeoutError) as error:
            await self.close()
            raise UserError(f"no process that decodes images could be started ({_reason(error)}); {_WAY_OUT}") from None

    @property
    def pids(self) -> list[int]:
        """Of the processes that live."""
        return [process.pid for process in self._alive]

    async def decode(self, content: bytes, preprocessing: Preprocessing) -> View:
        """What a model sees of an image. Raises BadImage for what gives no image, or not within the limits.

        Cancelled while it waits for a process, it is never decoded. Where its process is ended by another's hand, such
        as the system's when memory is short, it is decoded once more by another.
        """
        with contextlib.suppress(_EndedError):
            return await self._decode(content, preprocessing)
        try:
            return await self._decode(content, preprocessing)
        except _EndedError:
            raise BadImage(_NAME, self._what_killed()) from None

    async def _decode(self, content: bytes, preprocessing: Preprocessing) -> View:
        process = await self._idle.get()
        while process.returncode is not None:
            self._kept(self._replace(process))
            process = await self._idle.get()
        return await asyncio.shield(self._kept(self._decode_by(process, content, preprocessing)))

    async def close(self) -> None:
        """End all processes."""
        for task in self._tasks:
            task.cancel()
        for process in list(self._alive):
            await self._end(process)

    def _kept(self, work: "Coroutine[None, None, View] | Coroutine[None, None, None]") -> "asyncio.Task[View]":
        task: asyncio.Task[View] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_looked_at)
        return task

    async def _decode_by(self, process: Process, content: bytes, preprocessing: Preprocessing) -> View:
        start = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.decode_seconds + _LATE):
                await _send(process, content, preprocessing)
                answer = await _answer(process)
        except (TimeoutError, EOFError, OSError, ValueError):
            self._kept(self._replace(process))
            if time.monotonic() - start < _SOON * self._settings.decode_seconds:
                raise _EndedError from None
            raise BadImage(_NAME, self._what_killed()) from None
        except asyncio.CancelledError:
            await self._end(process)
            raise
        self._idle.put_nowait(process)
        if isinstance(answer, str):
            raise BadImage(_NAME, answer)
        return answer

    def _what_killed(self) -> str:
        seconds, memory = self._settings.decode_seconds, self._settings.decode_memory // MIB
        return f"not decoded within {seconds:g} s and {memory:,} MiB"

    async def _replace(self, process: Process) -> None:
        self.replaced += 1
        await self._end(process)
        while True:
            try:
                self._idle.put_nowait(await self._started())
                return
            except (OSError, EOFError, TimeoutError):  # no memory for a process, perhaps, just now
                await asyncio.sleep(_AGAIN)

    async def _started(self) -> Process:
        settings = self._settings
        limits = (settings.decode_seconds, settings.decode_memory, settings.pixels, settings.frames)
        command = (sys.executable, "-m", "residuum.inference.serve.decoder", *map(str, limits))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=_environment()
        )
        self._alive.add(process)
        try:
            async with asyncio.timeout(_START):
                assert process.stdout is not None
                await process.stdout.readexactly(len(READY))
        except EOFError:
            await self._end(process)
            raise EOFError(await _last_words(process)) from None
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _end(self, process: Process) -> None:
        self._alive.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _last_words(process: Process) -> str:
    """The last line that a process has left on stderr."""
    assert process.stderr is not None
    lines = (await process.stderr.read()).decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"it ended with {process.returncode}")


def _reason(error: Exception) -> str:
    return printable(str(error), 200) or f"not ready within {_START:g} s"  # a TimeoutError has no words


def _looked_at(task: "asyncio.Task[View]") -> None:
    """The error of a task that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()


def _environment() -> dict[str, str]:
    """This process's way to modules, and one thread: those that wait take addresses that decoding could use."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESIDUUM_")}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {**kept, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


async def _send(process: Process, content: bytes, preprocessing: Preprocessing) -> None:
    assert process.stdin is not None
    config = {key: value for key, value in preprocessing.to_config().items() if key != "mean_image"}
    head = json.dumps({"bytes": len(content), "preprocessing": config})
    process.stdin.write(head.encode() + b"\n")
    process.stdin.write(content)
    await process.stdin.drain()


async def _answer(process: Process) -> View | str:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise EOFError
    answer = json.loads(line)
    if "error" in answer:
        return str(answer["error"])
    pixels = await process.stdout.readexactly(int(np.prod(answer["shape"])))
    return np.frombuffer(pixels, np.uint8).reshape(answer["shape"])
