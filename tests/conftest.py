"""What the whole suite shares."""

import gc


def pytest_sessionfinish() -> None:
    """End worker processes that a kept traceback still holds now, not while the interpreter goes down."""
    gc.collect()
