"""Ctrl-C and SIGTERM as a request that the loop answers between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


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
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; the second acts at once, as if nobody listened.

    Signals reach Python's main thread alone; anywhere else nothing is installed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
