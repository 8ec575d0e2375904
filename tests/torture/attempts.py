"""The processes of one start or resumption of a run: forked from here in no time, or by the real commands. Linux only.

A process that forks must not have computed with torch before: its threads would not be there in the child.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from matrix import Configuration

from residuum.training.train import train

POLL_SECONDS = 0.001


class Attempt:
    """Running processes by their identifiers; `codes`: how those of them ended that have (minus the signal, if any)."""

    def __init__(self, pids: Iterable[int], log: Path) -> None:
        self.pids = list(pids)
        self.log = log
        self.codes: dict[int, int] = {}
        self._struck = False

    def running(self) -> list[int]:
        for pid in set(self.pids) - set(self.codes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.codes[pid] = os.waitstatus_to_exitcode(status)
        return [pid for pid in self.pids if pid not in self.codes]

    def wait(self, seconds: float) -> bool:
        """Whether all ended within that time."""
        return wait_until(lambda: not self.running(), seconds)

    def send(self, number: signal.Signals, pids: Iterable[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                self._struck = True

    @property
    def was_killed(self) -> bool:
        """Whether that is why it ended; torchrun ends with 1 when its processes are killed before it."""
        return self._struck and any(self.codes.values())

    @property
    def failed(self) -> bool:
        return any(code not in (0, -signal.SIGKILL) for code in self.codes.values())


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came true within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def launch(configuration: Configuration, data: str, run: Path, log: Path, changes: Sequence[str]) -> Attempt:
    """Start the run in the folder `run`, or resume it where it has begun; all output goes to the end of `log`."""
    resume = (run / "run.json").exists()

    def fork(environment: dict[str, str]) -> int:
        return _fork(log, environment, lambda: _train(configuration, data, run, resume, changes))

    if configuration.way != "fork":
        command = _command(configuration, data, run, resume, changes)
        return Attempt([_fork(log, {"OMP_NUM_THREADS": "1"}, lambda: os.execv(sys.executable, command))], log)
    return Attempt([fork(environment) for environment in _ranks(configuration.processes)], log)


def _fork(log: Path, environment: dict[str, str], work: Callable[[], None]) -> int:
    """A child in a session of its own that does `work`; its identifier."""
    pid = os.fork()
    return pid or _become(log, environment, work)


def _become(log: Path, environment: dict[str, str], work: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, sys.stdout.fileno())
        os.dup2(descriptor, sys.stderr.fileno())
        os.environ.update(environment)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(configuration: Configuration, data: str, run: Path, resume: bool, changes: Sequence[str]) -> None:
    torch.set_num_threads(1)
    if resume:
        train(data, out=run, resume=True, overrides=changes)
    else:
        train(data, model="resnet8", out=run, overrides=[*configuration.overrides, *changes])
    gc.collect()  # ends the worker processes, as the end of the interpreter would


def _command(configuration: Configuration, data: str, run: Path, resume: bool, changes: Sequence[str]) -> list[str]:
    train = ["residuum", "train", data, "--out", str(run)]
    if configuration.way == "torchrun":  # as a cluster does it: one command that starts or goes on
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(configuration.processes), "-m"]
        train, overrides = [*start, *train, "--auto-resume", "--model", "resnet8"], configuration.overrides
    elif resume:
        train, overrides = [*train, "--auto-resume"], []
    else:
        train, overrides = [*train, "--model", "resnet8"], configuration.overrides
    return [sys.executable, "-m", *train, *(part for change in [*overrides, *changes] for part in ("--set", change))]


def _ranks(count: int) -> list[dict[str, str]]:
    """The environment that torchrun would give each of `count` processes."""
    if count == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


class Process(NamedTuple):
    """One line of the system's process table."""

    pid: int
    parent: int
    session: int


def living_processes() -> list[Process]:
    """Every process that has not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                found.append(Process(int(path.parent.name), int(parent), int(session)))
    return found


def descendants(pids: Iterable[int]) -> list[int]:
    """The living ones of `pids`, and their living children, grandchildren and so on."""
    living = living_processes()
    family = [process.pid for process in living if process.pid in set(pids)]
    for member in family:  # grows while it is walked through
        family += [process.pid for process in living if process.parent == member]
    return family
