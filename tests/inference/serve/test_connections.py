"""No connection stays for ever: it is ended where its header, its rest or its reading of the answer takes too long."""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import LIGHT, QUICK, Server, served, until

SHORT = replace(QUICK, patience=1.0, body_bytes=4 * 2**20, connections=4)
SECONDS = 60.0  # in which what must end has ended on any machine


@pytest.fixture
def server(tiny: Path) -> Iterator[Server]:
    with served(tiny, settings=SHORT) as found:
        yield found


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def is_ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            continue
    except ConnectionResetError:
        pass
    return True


def sent_until_ended(connection: socket.socket, data: bytes, pause: float = 0.0) -> int:
    """How many bytes the server took before it ended the connection."""
    end, sent = time.monotonic() + SECONDS, 0
    try:
        while time.monotonic() < end:
            sent += connection.send(data)
            time.sleep(pause)
    except (ConnectionResetError, BrokenPipeError):
        return sent
    raise AssertionError("the connection is still there")


def test_a_silent_connection_is_ended(server: Server) -> None:
    with connect(server) as connection:
        assert is_ended(connection)


def test_a_header_byte_by_byte_is_ended(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        sent_until_ended(connection, b"x", pause=0.05)


def test_the_second_header_byte_by_byte_is_ended(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 200 " in connection.recv(65536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        sent_until_ended(connection, b"x", pause=0.05)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b" 413 "),
        (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 9999999\r\n\r\n",
            b" 403 ",
        ),
        (b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b" 405 "),
        (b"GET /models HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b" 200 "),
    ],
)
def test_what_follows_an_answer_is_not_taken_without_end(server: Server, head: bytes, status: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(head)
        answer = connection.recv(65536)
        assert status in answer.splitlines()[0]
        assert b"connection: close" in answer.lower()
        sent_until_ended(connection, b"x" * 65536)


def test_a_slow_rest_after_a_refusal_is_ended(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert b" 405 " in connection.recv(65536).splitlines()[0]
        sent_until_ended(connection, b"x", pause=0.05)


def test_who_sends_a_little_too_much_reads_why_though_it_sends_first(server: Server) -> None:
    body = b"x" * (SHORT.body_bytes + 100_000)
    with connect(server) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 413 " in connection.recv(65536).splitlines()[0]


def test_an_answer_that_is_not_read_is_dropped(server: Server) -> None:
    ask = b"GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        until(lambda: server.uvicorn.server_state.connections)
        until(lambda: ask_on(connection, ask) and not server.uvicorn.server_state.connections)


def ask_on(connection: socket.socket, ask: bytes) -> bool:
    """Ask, where the server still listens."""
    with contextlib.suppress(OSError):
        connection.send(ask * 1000)
    return True


def test_a_client_that_asks_again_in_time_keeps_its_connection(tiny: Path) -> None:
    with served(tiny, settings=replace(SHORT, patience=5.0)) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SECONDS)
        connection.connect()
        own, end = connection.sock, time.monotonic() + 7.0
        while time.monotonic() < end:
            connection.request("POST", "/predict", LIGHT)
            answer = connection.getresponse()
            assert (answer.status, len(answer.read()) > 0) == (200, True)
        assert connection.sock is own
        connection.close()


def test_connections_are_counted(server: Server) -> None:
    with ExitStack() as stack:
        several = [stack.enter_context(connect(server)) for _ in range(2 * SHORT.connections)]
        start = time.monotonic()
        assert all(is_ended(connection) for connection in several)
        assert time.monotonic() - start < SECONDS
    until(lambda: is_answered(server))


def is_answered(server: Server) -> bool:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return b" 200 " in connection.recv(65536)
        except ConnectionResetError:
            return False


def test_no_more_connections_than_allowed_are_open_at_once(tiny: Path) -> None:
    with served(tiny, settings=replace(SHORT, patience=SECONDS)) as server, ExitStack() as stack:
        kept = [stack.enter_context(connect(server)) for _ in range(SHORT.connections)]
        with connect(server) as one_more:
            assert is_ended(one_more)
        kept[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in kept[0].recv(65536)


def test_the_protocol_is_the_bounded_one(server: Server) -> None:
    config = server.uvicorn.config
    assert (config.http_protocol_class.settings, config.ws_protocol_class) == (SHORT, None)
