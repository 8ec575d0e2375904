"""The training loop: one epoch after another, one step after another, in sight."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from residuum.data.loaders import Batch
from residuum.data.workers import WorkerDiedError
from residuum.errors import UserError
from residuum.training.checkpoints import DamagedCheckpointError, load_checkpoint
from residuum.training.interruption import StopRequest
from residuum.training.job import Job, unwrapped
from residuum.training.progress import Status
from residuum.training.saving import evaluate_or_leave, is_checkpoint_due, leave_if_asked, save
from residuum.training.updates import NonFiniteError, settle, update

MOST_ROLLBACKS = 5


def fit(job: Job, stop: StopRequest) -> None:
    """Train until the run's duration is reached or early stopping ends it.

    Raises Interrupted, with the state saved, when `stop` asks for it, and NonFiniteError before a bad update, or
    after as many rollbacks as are allowed.
    """
    save(job)  # there is a state to go back to,
    job.checkpoints.wait()  # and the disk takes it, before any work is spent
    while job.position.epochs_recorded < job.epochs and not stopped_early(job):
        try:
            train_epoch(job, stop)
            finish_epoch(job, stop)
        except NonFiniteError as error:
            if job.run.on_nan == "stop" or job.position.rollbacks == MOST_ROLLBACKS:
                raise
            roll_back(job, error)
        leave_if_asked(job, stop)


def train_epoch(job: Job, stop: StopRequest) -> None:
    """The rest of the epoch, from where training stands."""
    epoch, position = job.position.epochs_recorded, job.position
    end = min(job.epoch_start + len(job.loader), job.total_steps)
    job.network.train()
    clock = time.monotonic()
    for batch in batches(job, epoch, end, stop):
        train_step(job, batch)
        position.seconds += time.monotonic() - clock
        clock = time.monotonic()
        job.reporter.step(position.step, len(batch.indices) * job.world.size, lambda: _status(job, epoch))
        job.checkpoints.raise_failure()
        if position.step < end:
            if is_checkpoint_due(job):
                save(job)
            leave_if_asked(job, stop)
    settle(job)
    position.seconds += time.monotonic() - clock


def batches(job: Job, epoch: int, end: int, stop: StopRequest) -> Iterator[Batch[Tensor]]:
    """The batches of the epoch from where training stands up to update `end`."""
    start = job.position.step
    try:
        yield from islice(job.loader.epoch(epoch, start=start - job.epoch_start), end - start)
    except WorkerDiedError:
        # Who asks to stop may signal the workers too; either way this process stands between two updates.
        if job.world.size == 1:
            leave_if_asked(job, stop)
            save(job)
        raise


def train_step(job: Job, batch: Batch[Tensor]) -> None:
    """One update on one batch, in `run.accumulate` pieces; none on a batch of which no image can be read."""
    if len(batch.indices):
        update(job, batch)
        if job.average is not None:
            job.average.update(unwrapped(job.network))
    elif job.world.size > 1:  # the others wait for this process's gradients
        raise UserError(f"none of the images of a batch can be read; the first is {batch.bad[0]}")
    job.position.step += 1


def finish_epoch(job: Job, stop: StopRequest) -> None:
    """Measure, record, let the schedule see the result, keep the best weights, and save."""
    position, epoch = job.position, job.position.epochs_recorded
    if not position.images:
        raise UserError("none of the training images can be read; run residuum check on the data")
    record = training_record(job, epoch)
    if position.step == job.total_steps or (epoch + 1) % job.run.evaluate_every == 0:
        evaluation = evaluate_or_leave(job, stop)
        score = {"val_error": 100.0 - evaluation.score} if job.single_label else {"val_map": evaluation.score}
        record |= {"val_loss": evaluation.loss.value, **score}
        job.schedule.observe_epoch(100.0 - evaluation.score)
        if position.best is None or evaluation.score > position.best:
            position.best, position.best_epoch = evaluation.score, epoch + 1
            if job.world.is_main:
                job.save_best(job.evaluated_network)
    position.start_epoch()
    position.epochs_recorded += 1
    if job.world.is_main:
        job.folder.append_metrics(record)
    save(job)
    job.reporter.epoch(record, job.epochs, job.watched)


def training_record(job: Job, epoch: int) -> dict[str, Any]:
    """One line of `metrics.jsonl`, errors in %; the training error is of the augmented images, as seen.

    With several labels an image there is no top-1: the training error is None, and what is watched is `val_map`, the
    mean average precision.
    """
    position = job.position
    return {
        "epoch": epoch + 1,
        "step": position.step,
        "lr": job.lr(position.step - 1),
        "train_loss": position.loss_sum / position.images,
        "train_error": 100.0 * (1.0 - position.correct / position.images) if job.single_label else None,
        "images": int(position.images),
        "seconds": round(position.seconds, 3),
    }


def stopped_early(job: Job) -> bool:
    """True when the watched score has not improved for `run.early_stopping` epochs."""
    patience = job.run.early_stopping
    return patience > 0 and job.position.epochs_recorded - job.position.best_epoch >= patience


def roll_back(job: Job, error: NonFiniteError) -> None:
    """Go back to the epoch's start, with half the learning rate from there on."""
    start, rollbacks = job.epoch_start, job.position.rollbacks + 1
    job.checkpoints.wait()
    job.world.barrier()  # it is on the disk
    try:
        state = load_checkpoint(job.checkpoints.path(start))
    except DamagedCheckpointError:
        raise error from None
    job.world.barrier()  # all have read what is now written anew
    job.world.from_main(lambda: job.checkpoints.remove_after(start))
    job.restore(state)
    job.position.rollbacks = rollbacks
    save(job)
    job.reporter.line(f"{error}, before the update; back to update {start}, learning rate x {0.5**rollbacks:g}")
    if job.world.is_main:
        known = job.folder.read_manifest().get("rollbacks", [])[: rollbacks - 1]
        job.folder.update_manifest({"rollbacks": [*known, {"step": error.step, "to": start, "images": error.images}]})


def _status(job: Job, epoch: int) -> Status:
    settle(job)
    position = job.position
    images = max(position.images, 1.0)
    accuracy = 100.0 * position.correct / images if job.single_label else None
    return Status(epoch + 1, job.epochs, position.loss_sum / images, accuracy)
