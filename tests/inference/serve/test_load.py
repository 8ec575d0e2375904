"""Under load: images of many requests together, a bounded queue, deadlines, and nothing computed for nobody."""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from local_server import LIGHT, QUICK, Server, Slow, served, slow_down

from residuum.inference.serve import gate
from residuum.inference.serve.batching import Batcher
from residuum.inference.serve.problems import Problem


def waiting(server: Server, images: int) -> None:
    """Until so many images are inside and decoded."""
    batcher = next(iter(server.service.models.values())).thread
    end = time.monotonic() + 30
    while server.service.gate.images < images or len(batcher._jobs) < images - 1:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_comes_during_a_batch_is_the_next_one(tiny: Path) -> None:
    with served(tiny) as server, ThreadPoolExecutor(8) as pool:
        slow = slow_down(server)
        first = pool.submit(server.predict, LIGHT)
        assert slow.begun.wait(30)
        others = [pool.submit(server.predict, LIGHT) for _ in range(5)]
        waiting(server, 6)
        slow.go.set()
        answers = [future.result() for future in (first, *others)]
        assert [answer.status_code for answer in answers] == [200] * 6
        assert slow.sizes == [1, 5]
        assert [answer.json()["images"][0]["timing"]["batch"] for answer in answers] == [1, 5, 5, 5, 5, 5]


def test_no_batch_is_larger_than_allowed(tiny: Path) -> None:
    with served(tiny, settings=replace(QUICK, batch=2)) as server, ThreadPoolExecutor(8) as pool:
        slow = slow_down(server)
        futures = [pool.submit(server.predict, LIGHT)]
        assert slow.begun.wait(30)
        futures += [pool.submit(server.predict, LIGHT) for _ in range(5)]
        waiting(server, 6)
        slow.go.set()
        assert [future.result().status_code for future in futures] == [200] * 6
        assert slow.sizes == [1, 2, 2, 1]


def test_past_the_queue_is_429_with_a_time_to_come_back(tiny: Path) -> None:
    settings = replace(QUICK, queue=3, images=2)
    with served(tiny, settings=settings) as server, ThreadPoolExecutor(8) as pool:
        slow = slow_down(server)
        inside = [pool.submit(server.predict, LIGHT)]
        assert slow.begun.wait(30)
        inside.append(pool.submit(server.predict, LIGHT))
        waiting(server, 2)
        two = server.client.post("/predict", files=[("image", ("a", LIGHT)), ("image", ("b", LIGHT))])
        assert two.status_code == 429
        inside.append(pool.submit(server.predict, LIGHT))
        waiting(server, 3)
        refused = server.predict(LIGHT)
        assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
        assert int(refused.headers["Retry-After"]) >= 1
        slow.go.set()
        assert [future.result().status_code for future in inside] == [200] * 3
        assert server.predict(LIGHT).status_code == 200


def test_more_requests_or_bytes_than_allowed_at_once_are_429(tiny: Path) -> None:
    settings = replace(QUICK, requests=1, body_bytes=1000, held_bytes=1000)
    with served(tiny, settings=settings) as server, ThreadPoolExecutor(8) as pool:
        slow = slow_down(server)
        inside = pool.submit(server.predict, LIGHT)
        assert slow.begun.wait(30)
        assert server.predict(LIGHT).status_code == 429
        slow.go.set()
        assert inside.result().status_code == 200
        server.service.gate.bytes = 999
        assert server.predict(LIGHT).status_code == 429
        server.service.gate.bytes = 0
        assert server.predict(LIGHT).status_code == 200
        assert (server.service.gate.requests, server.service.gate.bytes, server.service.gate.images) == (0, 0, 0)


@pytest.mark.parametrize("query", [{}, {"deadline": 1}])
def test_past_its_deadline_a_request_is_504_and_its_images_are_not_computed(
    tiny: Path, query: dict[str, object]
) -> None:
    settings = QUICK if query else replace(QUICK, deadline=5.0)
    with served(tiny, settings=settings) as server, ThreadPoolExecutor(8) as pool:
        slow = slow_down(server)
        first = pool.submit(server.predict, LIGHT)
        assert slow.begun.wait(30)
        late = server.predict(LIGHT, **query)
        assert (late.status_code, late.headers["content-type"]) == (504, "application/problem+json")
        slow.go.set()
        assert first.result().status_code in (200, 504)  # it had begun
        assert server.predict(LIGHT).status_code == 200
        assert slow.sizes == [1, 1]


def test_a_client_that_goes_away_costs_no_computing(tiny: Path) -> None:
    with served(tiny) as server, ThreadPoolExecutor(2) as pool:
        slow = slow_down(server)
        first = pool.submit(server.predict, LIGHT)
        assert slow.begun.wait(30)
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as gone:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LIGHT)}\r\n\r\n"
            gone.sendall(head.encode() + LIGHT)
            waiting(server, 2)
        end = time.monotonic() + 30
        while server.service.gate.images > 1:
            assert time.monotonic() < end
            time.sleep(0.01)
        slow.go.set()
        assert first.result().status_code == 200
        assert server.predict(LIGHT).status_code == 200
        assert slow.sizes == [1, 1]
        assert server.metric("residuum_cancelled_total") == 1


def test_an_engine_that_fails_is_a_500_and_the_next_request_is_answered(tiny: Path) -> None:
    with served(tiny) as server:
        batcher = next(iter(server.service.models.values())).thread
        real, batcher._probabilities = batcher._probabilities, lambda views: 1 / 0
        failed = server.predict(LIGHT)
        assert (failed.status_code, failed.headers["content-type"]) == (500, "application/problem+json")
        assert failed.headers["connection"] == "close"
        batcher._probabilities = real
        assert server.predict(LIGHT).status_code == 200


def test_the_event_loop_is_free_while_a_model_computes(tiny: Path) -> None:
    with served(tiny) as server, ThreadPoolExecutor(2) as pool:
        slow = slow_down(server)
        inside = pool.submit(server.predict, LIGHT)
        assert slow.begun.wait(30)
        assert server.client.get("/healthz", timeout=5).status_code == 200
        slow.go.set()
        assert inside.result().status_code == 200


def test_a_closed_batcher_has_answered_everything() -> None:
    async def scenario() -> list[float]:
        slow = Slow(lambda views: views.reshape(len(views), -1).astype(np.float32))
        batcher = Batcher(slow, 4, lambda images, seconds: None)
        futures = [batcher.submit(np.full((1, 1, 1), value, np.uint8), time.monotonic() + 60) for value in range(9)]
        slow.go.set()
        await batcher.close()
        return [float((await future).probabilities[0]) for future in futures]

    assert asyncio.run(scenario()) == list(range(9))


def test_the_time_to_come_back_follows_how_fast_images_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(gate.time, "monotonic", lambda: now[0])
    door = gate.Gate(replace(QUICK, queue=10, images=2))
    for _ in range(100):
        with door.waiting(2):
            now[0] += 5.0
    with door.waiting(10), pytest.raises(Problem) as refused, door.request():
        pass
    assert refused.value.headers == {"Retry-After": "25"}
