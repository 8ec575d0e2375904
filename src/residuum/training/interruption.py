"""Ctrl-C and SIGTERM as a request that training answers where nothing is half done."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

DEADLINE_SECONDS = 25.0
"""How long SIGTERM waits for a place to stop at: schedulers commonly kill after 30 seconds."""

ECHO_SECONDS = 2.0
"""A SIGTERM so soon after the first is its echo: a scheduler signals every process, and torchrun its own once more."""

_DONE = 0  # no signal has this number


class Interrupted(Exception):  # noqa: N818 - it is a request that was granted, not an error
    """Training stopped because a signal asked for it; its state is saved."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        self.signal_number = signal_number
        self.folder = folder
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; everything is saved in {folder}")

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal_number


class StopRequest:
    """`signal_number` is 0 until somebody asks training to stop."""

    def __init__(self) -> None:
        self.signal_number = 0


@contextmanager
def listen_for_stop(request: StopRequest, deadline: float = DEADLINE_SECONDS) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a `request`; the second of a kind acts at once.

    After SIGTERM the block has `deadline` seconds to end; then the process leaves with code 143 and what was saved
    before. Signals reach Python's main thread alone; anywhere else nothing is installed, nor for a signal that is
    ignored, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.signal_number == number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_number = request.signal_number or number

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    with _deadline(deadline):
        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """A thread of its own hears of SIGTERM, for the main one may be deep in a computation and hear nothing."""
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(hearing, seconds), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        telling.send(bytes([_DONE]))
        watch.join()
        hearing.close()
        telling.close()


def _watch(hearing: socket.socket, seconds: float) -> None:
    """Read the numbers of signals until there is none to come; leave at a second SIGTERM, or `seconds` after one."""
    asked: float | None = None
    while True:
        hearing.settimeout(None if asked is None else max(asked + seconds - time.monotonic(), 0.001))
        try:
            number = hearing.recv(1)[0]
        except TimeoutError:
            _leave_now(f"no place to stop at within {seconds:g} seconds")
        if number == _DONE:
            return
        if number == signal.SIGTERM:
            if asked is not None and time.monotonic() - asked > ECHO_SECONDS:
                _leave_now("asked twice")
            asked = asked or time.monotonic()


def _leave_now(reason: str) -> None:
    print(f"{reason}; what was saved last is whole", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGTERM)
