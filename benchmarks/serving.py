"""What a server makes of its engine: throughput, waiting times at twice its capacity, memory over minutes.

    python benchmarks/serving.py MODEL PHOTOS -o benchmarks/results/serving.json

Arms, in turn: the engine alone, on views that are decoded already; the server with as many clients as two batches, one
image a request; the server at twice the throughput just found, requests sent at even times whatever comes back. Then
the server is kept busy for --minutes, its memory read every five seconds. Client, decoding and engine share the
machine's cores; the engine alone has them to itself.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from loopback import Answer, Connection, Process, metrics, request
from measuring import Figures, Record, add_common_options, band, printed_json, speeds

MOST_OPEN = 512  # connections of the client at twice the capacity
TWICE = 1.9  # times the capacity that must really have been sent to be called so
WARM_SECONDS = 3.0
SETTLED_SECONDS = 60.0  # in which a server's buffers grow to their size


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a run or an exported model")
    parser.add_argument("photos", type=Path, help="a folder of images; the first 200 are sent")
    parser.add_argument("-b", "--batch-size", type=int, default=32, help="images computed together")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each arm is measured")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long memory is watched")
    parser.add_argument("--engine-alone", action="store_true", help=argparse.SUPPRESS)
    add_common_options(parser)
    options = parser.parse_args()
    if options.engine_alone:
        engine_alone(options)
        return
    record = Record(options)
    requests = [request(path.read_bytes()) for path in _photos(options.photos)]
    capacity: list[float] = []

    def engine() -> Figures:
        arguments = ("-b", options.batch_size, "--seconds", options.seconds, "--engine-alone")
        return printed_json([sys.executable, __file__, *map(str, (options.model, options.photos, *arguments))])

    def server() -> Figures:
        with Process([options.model, "-b", options.batch_size]) as process:
            figures = asyncio.run(_closed(process.port, requests, 2 * options.batch_size, options.seconds))
        capacity.append(figures["images_per_second"])
        return figures

    def overload() -> Figures:
        rate = 2 * (capacity[-1] if capacity else record.rounds[-1]["server"]["images_per_second"])
        with Process([options.model, "-b", options.batch_size]) as process:
            return asyncio.run(_open(process.port, requests, rate, 2 * options.batch_size, options.seconds))

    server_first = {"server": server, "twice the capacity": overload, "engine alone": engine}
    if not record.rounds:
        capacity.append(server()["images_per_second"])  # warm files, and a rate for whichever arm comes first
    record.run(server_first)
    memory = record.once("memory", lambda: _memory(options, requests)) if options.minutes else None
    both = [{arm: figures[arm] for arm in ("engine alone", "server")} for figures in record.rounds]
    over = [figures["twice the capacity"] for figures in record.rounds]
    sent = [2 * figures["sent_per_second"] / figures["rate"] for figures in over]
    record.conclude(
        share_of_the_engine=speeds(both, "engine alone", "images_per_second"),
        p99_ms_at_twice_the_capacity=band([figures["p99_ms"] for figures in over]),
        times_the_capacity_sent=band(sent),
        twice_was_sent=min(sent) >= TWICE,
        unsent=sum(figures["unsent"] for figures in over),
        refused_otherwise_than_429=sum(figures["refused_otherwise"] for figures in over),
        memory_growth_mib=memory and memory["last_mib"] - memory["first_mib"],
        memory_growth_mib_per_minute=memory and memory["mib_per_minute"],
    )


def _photos(folder: Path, most: int = 200) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not found:
        raise SystemExit(f"{folder} holds no images")
    return found[:most]


def engine_alone(options: argparse.Namespace) -> None:
    """Print how many images a second the engine computes in whole batches of decoded views."""
    import json

    from residuum.data.decoding import decode
    from residuum.inference.deployed import deploy

    deployed = deploy(options.model)
    handling = deployed.preprocessing
    views = [handling.view(decode(path, path.name, handling.channels)) for path in _photos(options.photos)]
    batches = itertools.cycle(_batches(views, options.batch_size))
    for _ in range(3):
        deployed.probabilities(next(batches))
    images, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < options.seconds:
        images += len(deployed.probabilities(next(batches)))
    print(json.dumps({"images": images, "images_per_second": images / seconds, "engine": deployed.engine}))


def _batches(views: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Whole ones, the views taken again where they are too few."""
    endless = itertools.cycle(views)
    return [np.stack(list(itertools.islice(endless, size))) for _ in range(max(1, len(views) // size))]


async def _closed(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Figures:
    """So many clients, each of which asks again as soon as it is answered."""
    endless = itertools.cycle(requests)
    await _warm(port, endless, clients, seconds)
    before, start = await metrics(port), time.perf_counter()
    waits = await _until(port, endless, clients, start + seconds)
    wall = time.perf_counter() - start
    after = await metrics(port)
    return _figures(waits, wall) | _batching(before, after, wall)


async def _warm(port: int, endless: Iterator[bytes], clients: int, seconds: float) -> None:
    await _until(port, endless, clients, time.perf_counter() + min(WARM_SECONDS, seconds))


async def _until(port: int, endless: Iterator[bytes], clients: int, end: float) -> list[tuple[int, float]]:
    async def client() -> list[tuple[int, float]]:
        connection, found = Connection(port), []
        while (start := time.perf_counter()) < end:
            answer = await connection.ask(next(endless))
            found.append((answer.status, time.perf_counter() - start))
        connection.close()
        return found

    return [wait for waits in await asyncio.gather(*(client() for _ in range(clients))) for wait in waits]


async def _open(port: int, requests: Sequence[bytes], rate: float, clients: int, seconds: float) -> Figures:
    """Requests at even times, `rate` a second, each by a connection that is free; what none is free for is counted.

    Warmed up as `_closed` is. sent_per_second: what the client really came to while it sent.
    """
    free = [Connection(port) for _ in range(MOST_OPEN)]
    endless, waits, tasks, unsent = itertools.cycle(requests), [], set(), 0

    async def one(connection: Connection, due: float) -> None:
        answer: Answer = await connection.ask(next(endless))
        waits.append((answer.status, time.perf_counter() - due))
        free.append(connection)

    await _warm(port, endless, clients, seconds)
    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if not free:
            unsent += 1
            continue
        task = asyncio.ensure_future(one(free.pop(), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    sending = time.perf_counter() - start
    await asyncio.gather(*tasks)
    figures, sent = _figures(waits, time.perf_counter() - start), int(rate * seconds) - unsent
    return figures | {"rate": rate, "sent": sent, "sent_per_second": sent / sending, "unsent": unsent}


def _figures(waits: Sequence[tuple[int, float]], seconds: float) -> Figures:
    """Of the accepted: how many a second, and their waiting times; of the others: how they were refused."""
    statuses = Counter(status for status, _ in waits)
    accepted = sorted(1000 * wait for status, wait in waits if status == 200)
    if not accepted:
        raise SystemExit(f"nothing was answered: {dict(statuses)}")
    return {
        "images": len(accepted),
        "images_per_second": len(accepted) / seconds,
        "p50_ms": statistics.median(accepted),
        "p99_ms": accepted[int(0.99 * (len(accepted) - 1))],
        "refused_with_429": statuses[429],
        "refused_otherwise": sum(count for status, count in statuses.items() if status not in (200, 429)),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
    }


def _batching(before: dict[str, float], after: dict[str, float], wall: float) -> Figures:
    """How large the batches were, and which share of the time the engine was computing."""
    batches, images, computing = (
        after[name] - before.get(name, 0.0)
        for name in ("residuum_batch_images_count", "residuum_batch_images_sum", "residuum_computing_seconds_total")
    )
    return {"images_a_batch": images / batches, "share_of_time_computing": computing / wall}


def _memory(options: argparse.Namespace, requests: Sequence[bytes]) -> Figures:
    """Read while the server is kept busy."""
    with Process([options.model, "-b", options.batch_size]) as process:
        samples = asyncio.run(_watched(process, requests, options))
    return growth(samples)


def growth(samples: Sequence[tuple[float, float]]) -> Figures:
    """Of (seconds, MiB): medians of the first and the last fifth, and the line's slope, without the first minute."""
    settled = [sample for sample in samples if sample[0] >= SETTLED_SECONDS]
    seconds, mib = zip(*(settled if len(settled) > 1 else samples), strict=True)
    fifth = max(1, len(mib) // 5)
    return {
        "seconds": [round(when, 1) for when, _ in samples],
        "mib": [round(value, 1) for _, value in samples],
        "first_mib": statistics.median(mib[:fifth]),
        "last_mib": statistics.median(mib[-fifth:]),
        "mib_per_minute": 60 * statistics.linear_regression(seconds, mib).slope,
    }


async def _watched(
    process: Process, requests: Sequence[bytes], options: argparse.Namespace
) -> list[tuple[float, float]]:
    start = time.perf_counter()
    end, clients = start + 60 * options.minutes, 2 * options.batch_size
    load = asyncio.ensure_future(_until(process.port, itertools.cycle(requests), clients, end))
    samples = []
    while not load.done():
        await asyncio.wait({load}, timeout=min(5.0, 6 * options.minutes))
        samples.append((time.perf_counter() - start, process.memory() / 2**20))
    return samples


if __name__ == "__main__":
    main()
