"""A server of ours as a process, and a client that costs little: whole requests out, status and body back."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PAGE_BYTES = 4096
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Process:
    """`residuum serve ARGUMENTS` on a free port of 127.0.0.1, from its first answer on.

    log: the file for what it says, read here only until it tells its address; by default one that goes with it.
    """

    def __init__(self, arguments: Sequence[str | Path], log: Path | None = None) -> None:
        command = [sys.executable, "-m", "residuum", "serve", *map(str, arguments), "--port", "0"]
        self._log = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115 - closed with the block
        self._process = subprocess.Popen(command, stderr=self._log)
        while (found := _ADDRESS.search(self._said())) is None:
            if not self.is_alive():
                raise SystemExit(f"the server does not start:\n{self._said()}")
            time.sleep(0.02)
        self.port = int(found[1])

    def _said(self) -> str:
        """Its first words. Not by `read`: the place in the file is the one where the server writes."""
        return os.pread(self._log.fileno(), 2**16, 0).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """Tell it to stop; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def memory(self) -> int:
        """Bytes in memory, of the server and of the processes that decode for it."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return sum(_resident(pid) for pid in (str(self._process.pid), *children))


def _resident(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


class Answer(NamedTuple):
    """status: 0 where the connection ended without an answer."""

    status: int
    body: bytes = b""


def request(content: bytes, kind: str = "application/octet-stream", path: str = "/predict") -> bytes:
    """A POST, whole."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode("latin-1") + content


class Connection:
    """One connection, opened when needed and again after it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes, seconds: float = 60.0) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(sent)
        except (OSError, EOFError, ValueError, TimeoutError):
            self.close()
            return Answer(0)

    async def _ask(self, sent: bytes) -> Answer:
        if self._streams is not None and self._streams[0].at_eof():  # the server ends what is idle for some seconds
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if "connection: close" in head or length is None:
            self.close()
        return Answer(int(head.split()[1]), body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def metrics(port: int) -> dict[str, float]:
    """The server's counters, by name and labels."""
    connection = Connection(port)
    answer = await connection.ask(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    connection.close()
    lines = [line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
