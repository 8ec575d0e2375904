"""Connections that end: bounded in number, and in the time that a client may take for its part of the talk."""

import asyncio
import contextlib
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from residuum.inference.serve.settings import Settings


class Connection(H11Protocol):
    """uvicorn's connection, whose client has `patience` seconds for what is its to do.

    That is to send a request's header, to read the answer, and to send what is left of a body that was refused. The
    body of a request that is being read and the computing have limits of their own.
    """

    settings: Settings
    _timer: asyncio.TimerHandle | None = None
    _discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self)))
        if len(self.connections) > self.settings.connections:
            transport.abort()
        else:
            self.expect()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; once the answer is the last, the client may finish what it was sending, within limits."""
        if not self.transport.is_closing():
            super().data_received(data)
            return
        self._discarded += len(data)
        if self._discarded > self.settings.body_bytes:
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.expect()

    def expect(self) -> None:
        """From now on the client has its time, whatever it has used before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self.settings.patience, self._lose_patience)

    def _lose_patience(self) -> None:
        if not self.is_answering or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()

    @property
    def is_answering(self) -> bool:
        """Whether a request is inside whose answer is not yet complete."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_sending(self) -> bool:
        """Whether the client is not done with its request: were the socket closed now, it would lose the answer."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)


class _Transport:
    """A transport that closes as HTTP wants it: what the client is still sending is taken until it has the answer."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._ended or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        self._connection.expect()
        if self._connection.is_sending:
            self._ended = True
            with contextlib.suppress(OSError):  # the client has gone
                self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()


def connections(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol for uvicorn, with a server's limits."""
    return type("Connection", (Connection,), {"settings": settings})
