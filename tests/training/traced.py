"""Runs whose updates are written down: `python traced.py OUT ARGUMENT...` does `residuum train ARGUMENT... --out OUT`.

After each update a process adds a line to OUT/trace-R.jsonl, R its rank: the update's number, the indices of the
process's own images, the mean loss over all processes, and which of torchrun's attempts it is. The environment
variable FAULTS, such as "SIGKILL rank-1 10, SIGTERM torchrun 15", sends one signal in each attempt, after an update:
to the process rank-N, to torchrun, or to "all" of them. More runs can follow in the same processes, each after an
argument "then".
"""

import json
import os
import signal
import sys
import threading
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import residuum.training.loop as loop
from residuum.cli import main
from residuum.training.loop import Batch, Job

true_step = loop.train_step


def traced_step(job: Job, batch: Batch) -> None:
    """In place of `loop.train_step`."""
    position, rank = job.position, job.world.rank
    loss_sum, images = position.loss_sum, position.images
    true_step(job, batch)
    loss = (position.loss_sum - loss_sum) / (position.images - images)
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    line = {"step": position.step, "indices": batch.indices.tolist(), "loss": loss, "attempt": attempt}
    with (job.folder.path / f"trace-{rank}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    faults = os.environ.get("FAULTS", "").split(", ")
    if attempt < len(faults) and faults[attempt]:
        name, whom, step = faults[attempt].split()
        if position.step == int(step):
            strike(signal.Signals[name], whom, rank)


def strike(number: signal.Signals, whom: str, rank: int) -> None:
    """torchrun, the parent of all, is struck once, by the first process, which waits until it is told in its turn."""
    if whom == "torchrun" and rank == 0:
        told, listening = threading.Event(), signal.getsignal(number)
        assert callable(listening)
        signal.signal(number, lambda *call: (told.set(), listening(*call)))
        os.kill(os.getppid(), number)
        while not told.is_set():
            time.sleep(0.01)
    if whom == "all" and rank == 0:
        os.kill(os.getppid(), number)
    if whom in ("all", f"rank-{rank}"):
        os.kill(os.getpid(), number)


def read_trace(out: Path, rank: int = 0) -> list[dict[str, Any]]:
    """The lines of one process, in the order of writing."""
    return [json.loads(line) for line in (out / f"trace-{rank}.jsonl").read_text().splitlines()]


def run_all(arguments: list[str]) -> int:
    """The exit code of the first run that fails, 0 where none does."""
    loop.train_step = traced_step
    for follows, run in groupby(arguments, key="then".__eq__):
        out, *rest = run
        if not follows and (code := main(["train", *rest, "--out", out])):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:]))
