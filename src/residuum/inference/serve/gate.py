"""How much a server takes on at once; past it, 429 and when to come back."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from residuum.inference.serve.problems import Problem
from residuum.inference.serve.settings import Settings

_LONGEST_WAIT = 60  # seconds a client is told to wait, at most
_WEIGHT = 0.1  # of the newest image in the running mean


class Gate:
    """Counts what is inside: requests, the bytes of their bodies, and images not yet answered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.requests = self.bytes = self.images = 0
        self._pace = 0.0  # seconds an image, of late
        self._last = 0.0  # when the last ones left

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request inside. Raises Problem where there is no room for it, before its body is read."""
        if self.requests >= self._settings.requests or self.images >= self._settings.queue:
            raise self._full()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def body(self) -> Iterator["Held"]:
        """The bytes of one body inside, as they come."""
        held = Held(self)
        try:
            yield held
        finally:
            self.bytes -= held.bytes

    @contextmanager
    def waiting(self, images: int) -> Iterator[None]:
        """Images inside until they are answered. Raises Problem where there is no room for all of them."""
        if self.images + images > self._settings.queue:
            raise self._full()
        self.images += images
        entered = time.monotonic()
        try:
            yield
        finally:
            self.images -= images
            self._learn(images, entered)

    def take(self, count: int) -> None:
        """Room for `count` bytes more. Raises Problem where there is none."""
        if self.bytes + count > self._settings.held_bytes:
            raise self._full()
        self.bytes += count

    def _learn(self, images: int, entered: float) -> None:
        """How long one image keeps the server: since its request came, or since those before it left."""
        now = time.monotonic()
        pace = (now - max(entered, self._last)) / images
        self._pace, self._last = (1 - _WEIGHT) * self._pace + _WEIGHT * pace, now

    def _full(self) -> Problem:
        wait = min(max(1, math.ceil(self.images * self._pace)), _LONGEST_WAIT)
        return Problem(429, f"the server is busy; try again in {wait} s", {"Retry-After": str(wait)})


class Held:
    """The bytes that one request holds."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.bytes = 0

    def add(self, count: int) -> None:
        """Raises Problem where there is no room for them."""
        self._gate.take(count)
        self.bytes += count
