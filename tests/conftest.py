"""What the whole suite shares."""

import gc
import signal


def pytest_configure() -> None:
    """Hear Ctrl-C, which tests send, also where the suite runs in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    """End worker processes that a kept traceback still holds now, not while the interpreter goes down."""
    gc.collect()
