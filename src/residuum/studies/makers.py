"""Where members are made: in this process, in several side by side, by torchrun, or on a Ray cluster.

Every maker takes folders that say what they hold, calls `look` now and then (about once a second where others do the
work), and stops at the first member that cannot be made. Interrupted, it lets the members that are under way save where
they stand; on a cluster they are ended, and lose what they did since their last checkpoint.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from residuum.errors import UserError
from residuum.processor import cores
from residuum.ray_cluster import GOES_ON, answers, ray_cluster
from residuum.studies.members import described, end_of, is_made, make
from residuum.studies.worker import LOG
from residuum.training.interruption import Interrupted, StopRequest, listen_for_stop

Look = Callable[[Sequence[Path]], None]
"""Told the folders that are under way now."""

Maker = Callable[[Sequence[Path], Look], None]


def quietly(now: Sequence[Path]) -> None:
    """Look at nothing."""


_SIDE_BY_SIDE_ON_A_GPU = 4  # networks of 32-pixel images leave most of a GPU idle; see the documentation's benchmark
_LOOK_SECONDS = 1.0
_GOODBYE_SECONDS = 30.0


class MemberError(UserError):
    """A member could not be made."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder = folder
        super().__init__(reason)


def usual_jobs(devices: Iterable[str]) -> int:
    """How many members are made at once unless somebody says: one a CPU core, or four a GPU that is chosen for them.

    devices: the names that the members' runs give theirs.
    """
    return _SIDE_BY_SIDE_ON_A_GPU * _gpus_to_share(devices) or cores()


def _gpus_to_share(devices: Iterable[str]) -> int:
    """How many GPUs there are, where the members leave the choice of one to us."""
    return torch.cuda.device_count() if set(devices) <= {"auto", "cuda"} else 0


def here(folders: Sequence[Path], look: Look) -> None:
    """One after another in this process."""
    for folder in folders:
        look([folder])
        with (folder / LOG).open("a", encoding="utf-8") as log, redirect_stderr(log):
            try:
                make(folder)
            except UserError as error:
                raise MemberError(folder, str(error)) from error


# Processes of our own.


@dataclass
class _Worker:
    """A process that makes members, and the folder it is at."""

    process: "subprocess.Popen[str]"
    folder: Path | None = None

    def begin(self, folder: Path) -> None:
        assert self.process.stdin is not None
        self.folder = folder
        with suppress(BrokenPipeError):  # one that is gone is told by who listens to it
            self.process.stdin.write(f"{folder.absolute()}\n")
            self.process.stdin.flush()


_Reply = tuple[_Worker, str | None]
"""A worker and the line it said; None: it is gone."""


def side_by_side(jobs: int, devices: Iterable[str] = ("auto",)) -> Maker:
    """At most `jobs` at once, each in a process that keeps to its share of the cores, or to one GPU.

    devices: the names that the members' runs give theirs; one that names its GPU keeps to that.
    """
    gpus = _gpus_to_share(devices)

    def maker(folders: Sequence[Path], look: Look) -> None:
        replies: queue.Queue[_Reply] = queue.Queue()
        waiting, stop = deque(folders), StopRequest()
        with listen_for_stop(stop), _workers(min(jobs, len(folders)), gpus, replies) as workers:
            for worker in workers:
                worker.begin(waiting.popleft())
            while busy := [worker.folder for worker in workers if worker.folder is not None]:
                look(busy)
                if stop.signal_number:
                    raise Interrupted(stop.signal_number, folders[0].parent)
                _take_reply(replies, waiting)

    return maker


def _take_reply(replies: "queue.Queue[_Reply]", waiting: "deque[Path]") -> None:
    """Hear of one member that is made, if there is one, and begin another. Raises MemberError for one that is not."""
    try:
        worker, line = replies.get(timeout=_LOOK_SECONDS)
    except queue.Empty:
        return
    folder, worker.folder = worker.folder, None
    if folder is None:
        return
    if line is None:
        raise MemberError(folder, _of_a_death(worker.process.wait(), folder))
    if reason := json.loads(line)["error"]:
        raise MemberError(folder, reason)
    if waiting:
        worker.begin(waiting.popleft())


def _of_a_death(code: int, folder: Path) -> str:
    if code == -signal.SIGKILL:
        return f"its process was killed, as a system does that runs out of memory; take fewer with -j; {GOES_ON}"
    return f"its process ended with code {code}; see {folder / LOG}"


@contextmanager
def _workers(number: int, gpus: int, replies: "queue.Queue[_Reply]") -> Iterator[list[_Worker]]:
    """Processes that wait for folders; at the end those at work are asked to save and leave."""
    command = [sys.executable, "-m", "residuum.studies.worker"]
    workers = [
        _Worker(_started(command, _environment(place, number, gpus), stdin=subprocess.PIPE)) for place in range(number)
    ]
    for worker in workers:
        threading.Thread(target=_listen, args=(worker, replies), daemon=True).start()
    try:
        yield workers
    finally:
        _end([worker.process for worker in workers])


def _started(command: Sequence[str], environment: Mapping[str, str], **how: Any) -> "subprocess.Popen[str]":
    """A process in a group of its own, so that Ctrl-C reaches it through us alone."""
    pipes = {"stdout": subprocess.PIPE, "text": True, "encoding": "utf-8", **how}
    return subprocess.Popen(command, env=dict(environment), start_new_session=True, **pipes)


def _environment(place: int, number: int, gpus: int) -> dict[str, str]:
    threads = str(max(1, cores() // number))
    one_gpu = {"CUDA_VISIBLE_DEVICES": _visible(place % gpus)} if gpus else {}
    return {**os.environ, "OMP_NUM_THREADS": threads, **one_gpu}


def _visible(number: int) -> str:
    """What the system calls the GPU that this process calls `number`."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[number] if names else str(number)


def _listen(worker: _Worker, replies: "queue.Queue[_Reply]") -> None:
    assert worker.process.stdout is not None
    for line in worker.process.stdout:
        replies.put((worker, line))
    replies.put((worker, None))


def _end(processes: "Sequence[subprocess.Popen[str]]") -> None:
    """Ask processes to save and leave, all at once; after half a minute they must."""
    for process in processes:
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()  # no more folders come
        process.terminate()
    deadline = time.monotonic() + _GOODBYE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def with_torchrun(processes: int) -> Maker:
    """One after another, each by `processes` processes that torchrun starts on this machine."""

    def maker(folders: Sequence[Path], look: Look) -> None:
        stop = StopRequest()
        with listen_for_stop(stop):
            for folder in folders:
                _under_torchrun(folder, processes, look, stop)

    return maker


def _under_torchrun(folder: Path, processes: int, look: Look, stop: StopRequest) -> None:
    """Train with all processes, then measure with one; what is not wanted is not begun."""
    worker, members = ["-m", "residuum.studies.worker", str(folder)], described(folder)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    if members[0].run is not None and end_of(folder) is None:
        _attend(folder, launcher + worker, max(1, cores() // processes), look, stop)
    if not all(is_made(member, folder) for member in members):
        _attend(folder, worker, cores(), look, stop)


def _attend(folder: Path, arguments: Sequence[str], threads: int, look: Look, stop: StopRequest) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with (folder / LOG).open("a", encoding="utf-8") as log:
        process = _started([sys.executable, *arguments], environment, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                look([folder])
                if stop.signal_number:
                    raise Interrupted(stop.signal_number, folder)
                time.sleep(_LOOK_SECONDS / 10)
        finally:
            _end([process])
    if process.returncode:
        raise MemberError(folder, f"its processes ended with code {process.returncode}; see {folder / LOG}")


# A cluster.


def on_ray(folders: Sequence[Path], look: Look) -> None:
    """On the Ray cluster that RAY_ADDRESS names, or on one of this machine's own.

    The folders and the data must lie where every node sees them, under the same path. Raises UserError without ray.
    """
    with ray_cluster("a study on a cluster") as ray:
        has_gpus = "GPU" in ray.cluster_resources()
        share = 1 / _SIDE_BY_SIDE_ON_A_GPU if has_gpus else 0
        task = ray.remote(num_cpus=1, num_gpus=share)(_make_on_a_node)
        tasks = {task.remote(folder.absolute()): folder for folder in folders}
        for folder, reason in answers(ray, tasks, look):
            if reason:
                raise MemberError(folder, reason)


def _make_on_a_node(folder: Path) -> str:
    from residuum.studies.worker import make_logged

    return make_logged(folder)
