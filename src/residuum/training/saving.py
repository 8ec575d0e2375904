"""When a run saves its state, and how it leaves when it is asked to stop."""

import time

import torch

from residuum.data.workers import WorkerDiedError
from residuum.evaluation.scores import Evaluation
from residuum.training.interruption import Interrupted, StopRequest
from residuum.training.job import Job
from residuum.training.updates import settle


def is_checkpoint_due(job: Job) -> bool:
    """Whether the run's interval has gone by."""
    every = job.run.checkpoint_interval
    if every.updates:
        return job.position.step % every.updates == 0
    return time.monotonic() - job.saved_at >= every.seconds


def save(job: Job) -> None:
    """Begin to write a checkpoint of this very moment. The one at the epoch's start is kept, to roll back to."""
    settle(job)
    if job.saved == job.position.key:
        return
    job.saved, job.saved_at = job.position.key, time.monotonic()
    if job.world.is_main:
        job.checkpoints.write(job.position.step, job.state(), pinned={job.epoch_start})


def leave_if_asked(job: Job, stop: StopRequest) -> None:
    """Save and raise Interrupted when any process was asked to stop: all leave after the same step."""
    asked = stop.signal_number
    if job.world.size > 1:
        asked = int(job.world.max(torch.tensor(asked, device=job.device)))
    if asked:
        save(job)
        job.checkpoints.wait()
        job.world.barrier()  # a process that leaves takes the others with it
        raise Interrupted(asked, job.folder.path)


def evaluate_or_leave(job: Job, stop: StopRequest) -> Evaluation:
    """The score at the end of an epoch. What ends it before its time finds the state from before it saved."""
    if job.world.size > 1:  # whose processes cannot leave an evaluation together
        save(job)
    try:
        return job.evaluate(job.evaluated_network)
    except (Interrupted, WorkerDiedError):
        save(job)
        job.checkpoints.wait()
        if job.world.size == 1:
            leave_if_asked(job, stop)
        raise
