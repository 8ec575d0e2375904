"""The server as a process: an address, signals, and an end at which everybody has been answered."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass

import uvicorn

from residuum.errors import UserError, in_words
from residuum.inference.serve.app import create_app
from residuum.inference.serve.connections import connections
from residuum.inference.serve.service import Service

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LAST = 5.0  # seconds beyond body and deadline after which even an unanswered client is left


@dataclass(frozen=True)
class Door:
    """Where a server is asked: host and port (0: any that is free), by whom, and whether each request is logged.

    key: what clients must send, None for nothing. names: further names under which it may be asked.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    names: Collection[str] = ()
    access_log: bool = False

    @property
    def hosts(self) -> Collection[str] | None:
        """On loopback only its own names; elsewhere any, unless some are given."""
        if self.host in LOOPBACK or self.names:
            return {*LOOPBACK, self.host, *self.names}
        return None


def bind(door: Door) -> socket.socket:
    """The address, taken. Raises UserError where it cannot be had."""
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((door.host, door.port))
    except (OSError, OverflowError) as error:
        found.close()
        reason = in_words(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot serve at {door.host} port {door.port}: {reason}; choose another --port") from None
    return found


def run(service: Service, door: Door, address: socket.socket) -> None:
    """Serve until a signal says stop; then answer those inside, and return. Raises UserError as `Service.start`."""
    Server(service, door.key, door.hosts, door.access_log).run(sockets=[address])


class Server(uvicorn.Server):
    """uvicorn's server with our signals.

    SIGTERM and SIGINT: /readyz says 503 for `grace` seconds, in which requests are still answered; then no new ones
    are let in, and the process ends once those inside are answered. At a second signal at once. SIGHUP: open all
    models anew.
    """

    def __init__(self, service: Service, key: str | None, hosts: Collection[str] | None, access_log: bool) -> None:
        settings = service.settings
        config = uvicorn.Config(
            create_app(service, key, hosts),
            http=connections(settings),
            ws="none",  # whose connections would have no limits
            log_level="info" if access_log else "error",
            access_log=access_log,
            server_header=False,
            timeout_graceful_shutdown=round(settings.body_seconds + settings.deadline + _LAST),
        )
        super().__init__(config)
        self._service = service
        self._work: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then say where. Before it the service, whose refusal would be a traceback of uvicorn's."""
        await self._service.start()
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread():
            self._listen_for_signals()
        for address in sockets or []:
            host, port = address.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving {', '.join(self._service.models)} at http://{shown}:{port}", file=sys.stderr, flush=True)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._begin, self._service.reload_all)

    def _begin(self, work: "Callable[[], Coroutine[None, None, None]]") -> None:
        task = asyncio.ensure_future(work())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def _stop(self) -> None:
        if self._service.draining:
            self.should_exit = True
            return
        self._service.draining = True
        self._begin(self._drain)

    async def _drain(self) -> None:
        await asyncio.sleep(self._service.settings.grace)
        self.should_exit = True
