"""A mutation fuzzer over image files: whatever their bytes, an image or BadImage, in bounded time and memory.

    python tests/data/fuzz.py -n 100000 [--seeds FOLDER] [--seed 0] [-j 2] [--format JPEG]

JPEGs are decoded twice, as ever and by Pillow alone, and both ways must end alike: in the same pixels, or refused.
Ends with 1 where anything else happened: another exception, a wrong array, a death by signal, more than 10 s of CPU
time, a MemoryError where BadImage should be (each process may take 4 GiB over its start). Such a file is kept under
--findings, and comes again with --first NUMBER -n 1 and the same --seeds and --seed. For Linux, whose limits it uses.
"""

import argparse
import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from mutations import mutated
from numpy.typing import NDArray
from seed_images import MAGIC, Seed, built_in, files_under

import residuum.data.decoding as decoding
from residuum.data.decoding import MAX_PIXELS, BadImage, decode, probe

Read = Callable[[bytes, str, int], NDArray[np.uint8]]
Check = Callable[[bytes, int], str]
"""(content, channels) -> "decoded" or "refused"; whatever it raises is a finding."""


class Limits(NamedTuple):
    """What one file may take. memory: bytes of address space over what the process had before its first file."""

    cpu_seconds: float = 10.0
    wall_seconds: float = 300.0  # for what waits without computing; wide, since the machine may be shared
    memory: int = 4 << 30


class Report(NamedTuple):
    """What became of one case. result: "decoded", "refused" or what was found; peak: bytes, of the process so far."""

    case: int
    format: str
    result: str
    seconds: float
    peak: int


def check_image(content: bytes, channels: int, read: Read = decode) -> str:
    """Whether `read` and `probe` keep their promises on these bytes. Raises AssertionError where they do not."""
    try:
        facts = probe(content, "x")
    except BadImage:
        facts = None
    else:
        assert 0 < facts.width * facts.height <= MAX_PIXELS, f"probe promised {facts}"
    try:
        image = read(content, "x", channels)
    except BadImage:
        return "refused"
    assert facts is not None, "decode read what probe refused"
    assert isinstance(image, np.ndarray), f"decode gave {type(image).__name__}"
    assert image.dtype == np.uint8, f"decode gave {image.dtype}"
    assert image.shape == (facts.height, facts.width, channels), f"decode gave {image.shape}, probe {facts}"
    return "decoded"


def check_twice(content: bytes, channels: int) -> str:
    """As `check_image`, and for JPEGs whether Pillow alone comes to the same."""
    result = check_image(content, channels)
    if not content.startswith(MAGIC["JPEG"][:2]):
        return result
    pixels = _by_pillow(content, channels)
    if isinstance(pixels, str):
        assert result == "refused", f"decoded, and Pillow says: {pixels}"
    else:
        assert result == "decoded", "refused, and Pillow decodes it"
        assert np.array_equal(decode(content, "x", channels), pixels), "other pixels than Pillow's"
    return result


def _by_pillow(content: bytes, channels: int) -> NDArray[np.uint8] | str:
    """The pixels, or why there are none."""
    with patch.object(decoding, "_simplejpeg", lambda: None):
        try:
            return decode(content, "x", channels)
        except BadImage as error:
            return error.reason


# ---- In a process of its own, which a file may kill ----


def _work(connection: Connection, check: Check, limits: Limits, seeds: Sequence[Seed], seed: int, cases: range) -> None:
    base = _confine(limits.memory)
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the C libraries tell of every broken byte
    for case in cases:
        start, content = mutated(seeds, seed, case)
        # The kernel ends the process, whatever C code it is in.
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
        began = time.process_time()
        try:
            result = check(content, 1 + case % 2 * 2)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"[:300]
        seconds = time.process_time() - began
        connection.send(Report(case, start.format, result, seconds, max(0, _peak() - base)))


def _confine(memory: int) -> int:
    """Limit the address space; a death leaves no core file and its signal tells why. The memory held until now."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_CAUSES = {
    -signal.SIGPROF: "hang: too much CPU time",
    -signal.SIGALRM: "hang: it waits",
    -signal.SIGKILL: "killed, as the kernel does for want of memory",
}


class Worker:
    """A process that goes through `cases` and is started anew behind the case that killed it."""

    def __init__(self, check: Check, limits: Limits, seeds: Sequence[Seed], seed: int, cases: range) -> None:
        self._check, self._limits, self._seeds, self._seed, self.cases = check, limits, seeds, seed, cases
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")  # at once, and with all that `check` refers to
        self.connection, theirs = context.Pipe(duplex=False)
        arguments = (theirs, self._check, self._limits, self._seeds, self._seed, self.cases)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def report(self) -> Report:
        """The next case's; waits for it. A death is the report of the case that was under way."""
        try:
            report = self.connection.recv()
            self.cases = self.cases[1:]
        except EOFError:
            report = self._obituary()
        return report

    def _obituary(self) -> Report:
        self._process.join()
        status = self._process.exitcode or 0
        cause = _CAUSES.get(status) or (f"crash: {signal.strsignal(-status)}" if status < 0 else f"exit {status}")
        case, self.cases = self.cases[0], self.cases[1:]
        if self.cases:
            self._start()
        return Report(case, mutated(self._seeds, self._seed, case)[0].format, cause, 0.0, 0)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


# ---- In the parent ----


@dataclass
class Summary:
    """Counts by format and result, and the extremes."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Report] = field(default_factory=list)
    slowest: Report | None = None
    hungriest: Report | None = None

    def add(self, report: Report) -> None:
        found = report.result not in ("decoded", "refused")
        self.counts[report.format, "found" if found else report.result] += 1
        if found:
            self.findings.append(report)
        if self.slowest is None or report.seconds > self.slowest.seconds:
            self.slowest = report
        if self.hungriest is None or report.peak > self.hungriest.peak:
            self.hungriest = report

    def lines(self, wall: float) -> Iterator[str]:
        results = ("decoded", "refused", "found")
        yield f"{'format':8}{'files':>9}" + "".join(f"{result:>9}" for result in results)
        for form in [*sorted({form for form, _ in self.counts}), "all"]:
            row = [
                sum(n for (f, r), n in self.counts.items() if form in (f, "all") and r == result) for result in results
            ]
            yield f"{form:8}{sum(row):9}" + "".join(f"{n:9}" for n in row)
        if self.slowest and self.hungriest:
            yield f"slowest: case {self.slowest.case}, {1000 * self.slowest.seconds:,.0f} ms of CPU time"
            yield f"peak memory: case {self.hungriest.case}, {self.hungriest.peak / 2**20:,.0f} MiB over the start"
        yield f"rate: {self.counts.total() / wall:.0f} files/s"


def fuzz(
    seeds: Sequence[Seed],
    cases: range,
    seed: int = 0,
    processes: int = 1,
    check: Check = check_image,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> Iterator[Report]:
    """A report for every case: in order within each process, and the processes' mixed."""
    workers: list[Worker] = []
    try:
        for share in range(min(processes, len(cases))):
            workers.append(Worker(check, limits, seeds, seed, cases[share::processes]))
        while running := {worker.connection: worker for worker in workers if worker.cases}:
            for connection in wait(list(running)):
                yield running[connection].report()  # type: ignore[index]
    finally:
        for worker in workers:
            worker.stop()


def _keep(folder: Path, report: Report, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"case-{report.case}.{report.format.lower()}"
    path.write_bytes(content)
    return path


def main(argv: Sequence[str] | None = None, check: Check = check_twice) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=100_000, help="how many files")
    parser.add_argument("--seeds", type=Path, help="folder of JPEG and PNG files to start from (else: built in)")
    parser.add_argument("--format", choices=sorted(MAGIC), help="start from files of this format only")
    parser.add_argument("--seed", type=int, default=0, help="for the random mutations")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("-j", type=int, default=2, help="processes")
    parser.add_argument("--findings", type=Path, default=Path("runs/fuzz"), help="where found files are kept")
    args = parser.parse_args(argv)
    seeds = files_under(args.seeds) if args.seeds else built_in()
    seeds = [seed for seed in seeds if args.format in (None, seed.format)]
    if not seeds:
        parser.error(f"no {args.format or 'JPEG or PNG'} file under {args.seeds}")
    summary, began = Summary(), time.monotonic()
    for report in fuzz(seeds, range(args.first, args.first + args.n), args.seed, args.j, check):
        summary.add(report)
        if report.result not in ("decoded", "refused"):
            start, content = mutated(seeds, args.seed, report.case)
            print(f"case {report.case}, from {start.kind} {start.format}: {report.result}")
            print(f"  {_keep(args.findings, report, content)}", flush=True)
    print(*summary.lines(time.monotonic() - began), sep="\n")
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
