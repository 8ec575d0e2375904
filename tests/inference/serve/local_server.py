"""A server on loopback in a thread of its own, with a model whose speed and mood a test decides."""

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from residuum.inference.serve import server as server_module
from residuum.inference.serve.models import How, Named
from residuum.inference.serve.service import Service
from residuum.inference.serve.settings import Settings

QUICK = Settings(decoders=1, watch=0, grace=0, deadline=60.0, decode_seconds=60.0)  # on a busy machine, too
AUTO, FP32 = How(), How(device="cpu", precision="fp32")


@dataclass
class Server:
    """url, and the service behind it, which lives in `loop` with uvicorn's server."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop
    client: httpx2.Client
    uvicorn: server_module.Server

    def predict(self, content: bytes, **query: object) -> httpx2.Response:
        return self.client.post("/predict", content=content, params=query)

    def metric(self, line: str) -> float:
        for found in self.client.get("/metrics").text.splitlines():
            if found.startswith(f"{line} "):
                return float(found.rpartition(" ")[2])
        return 0.0

    def run(self, work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextmanager
def served(
    *models: Path,
    settings: Settings = QUICK,
    how: How = AUTO,
    key: str | None = None,
    hosts: Collection[str] | None = None,
) -> Iterator[Server]:
    named = [Named(path.name, path) for path in models]
    service = Service(named, how, settings)
    address = socket.create_server(("127.0.0.1", 0))
    server = server_module.Server(service, key, hosts, access_log=False)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(sockets=[address]),))
    thread.start()
    url = f"http://127.0.0.1:{address.getsockname()[1]}"
    try:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while not server.started and thread.is_alive():
                thread.join(0.01)
            yield Server(url, service, loop, client, server)
    finally:
        server.should_exit = True
        thread.join(60)
        loop.close()


@dataclass
class Slow:
    """A model's probabilities that come only when they may; `sizes` of the batches that have begun."""

    real: object
    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)

    def __call__(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(views))
        self.begun.set()
        assert self.go.wait(60)
        return self.real(views)


def slow_down(server: Server) -> Slow:
    """Have the first model wait from now on until the test lets it go."""
    batcher = next(iter(server.service.models.values())).thread
    batcher._probabilities = slow = Slow(batcher._probabilities)
    return slow


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def picture(
    colour: tuple[int, int, int] = (250, 250, 250), form: str = "PNG", size: tuple[int, int] = (12, 9)
) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


LIGHT, DARK, RED = picture(), picture((3, 3, 3)), picture((250, 4, 4), "JPEG")
