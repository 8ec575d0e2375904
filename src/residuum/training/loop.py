"""The training loop: one epoch after another, one step after another, in sight."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from residuum.data.loaders import Batch
from residuum.data.storage import WorkerDiedError
from residuum.errors import UserError
from residuum.hardware import autocast
from residuum.randomness import derived_seed
from residuum.training.checkpoints import DamagedCheckpointError, load_checkpoint
from residuum.training.interruption import StopRequest
from residuum.training.job import Job, unwrapped
from residuum.training.progress import Status
from residuum.training.saving import evaluate_or_leave, is_checkpoint_due, leave_if_asked, save

MOST_ROLLBACKS = 5
MOST_NAMED = 1000


class NonFiniteError(UserError):
    """The loss or the gradient of a batch is NaN or infinite. Raised before the update.

    L-BFGS may then stand at a point of its line search; nothing is saved there. images: the names of the first 1,000 of
    the batch's images, of all processes.
    """

    def __init__(self, what: str, value: float, step: int, images: list[str]) -> None:
        self.step, self.images = step, images
        super().__init__(f"the {what} is {value} at update {step}")


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
        job.reporter.step(position.step, len(batch.indices) * job.world.size, _status(job, epoch))
        job.checkpoints.raise_failure()
        if position.step < end:
            if is_checkpoint_due(job):
                save(job)
            leave_if_asked(job, stop)


def batches(job: Job, epoch: int, end: int, stop: StopRequest) -> Iterator[Batch]:
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


def train_step(job: Job, batch: Batch) -> None:
    """One update on one batch, in `run.accumulate` pieces. L-BFGS calls the closure more than once, the others once."""
    position, run = job.position, job.run
    network_seed = derived_seed(run.seed, f"network/{job.world.rank}", position.step)
    for group in job.optimizer.param_groups:
        group["lr"] = job.lr(position.step)
    counts = torch.zeros(3)

    def closure() -> float:
        nonlocal counts
        job.optimizer.zero_grad()
        torch.manual_seed(network_seed)
        counts = job.world.sum(forward_and_backward(job, batch)).cpu()
        mean_loss = float(counts[0] / counts[2])
        check_finite(job, "loss", mean_loss, batch)
        check_finite(job, "gradient", clip_gradient(job), batch)
        return mean_loss

    if not len(batch.indices):  # a small batch can lose all its images to damaged files
        if job.world.size > 1:  # the others wait for this process's gradients
            raise UserError(f"none of the images of a batch can be read; the first is {batch.bad[0]}")
        position.step += 1
        return
    job.optimizer.step(closure)
    loss_sum, correct, images = counts.tolist()
    job.schedule.observe_batch(1.0 - correct / images)
    position.add(loss_sum, correct, images)
    if job.average is not None:
        job.average.update(unwrapped(job.network))
    position.step += 1


def clip_gradient(job: Job) -> float:
    """Scale the gradient down to a norm of `run.clip_norm`, where that is set; returns the norm it had."""
    parameters = [parameter for parameter in job.network.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if job.run.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, job.run.clip_norm, norm)
    return float(norm)


def check_finite(job: Job, what: str, value: float, batch: Batch) -> None:
    """Raise NonFiniteError when `value`, the same in every process, is NaN or infinite."""
    if not math.isfinite(value):
        names = job.loader.split.names
        images = job.world.gather([names[index] for index in batch.indices.tolist()])
        raise NonFiniteError(what, value, job.position.step, [name for part in images for name in part][:MOST_NAMED])


def forward_and_backward(job: Job, batch: Batch) -> Tensor:
    """Add the gradients of the mean loss of `batch` to the parameters.

    Returns (3,): the loss summed over images, the number of right answers, the number of images.
    """
    counts = torch.zeros(3, device=job.device)
    images = batch.images.contiguous(memory_format=torch.channels_last)
    total, pieces = _share_of_mean(job, len(images)), _pieces(job, len(images))
    for image_piece, label_piece in zip(images.tensor_split(pieces), batch.labels.tensor_split(pieces), strict=True):
        with autocast(job.device, job.dtype):
            logits = job.network(image_piece)
        loss = job.loss(logits.float(), label_piece) * len(image_piece)
        (loss / total).backward()  # type: ignore[no-untyped-call]
        correct = count_correct(logits.detach(), label_piece)
        counts += torch.stack([loss.detach(), correct, correct.new_tensor(len(image_piece))])
    return counts


def _share_of_mean(job: Job, images: int) -> Tensor | int:
    """What a sum over this process's `images` is divided by, so that the mean over processes is that over images.

    Damaged files leave some processes with fewer images than others.
    """
    if job.world.size == 1:
        return images
    return job.world.sum(torch.tensor(float(images), device=job.device)) / job.world.size


def _pieces(job: Job, images: int) -> int:
    """How many micro-batches: as many in every process, since each of them sums gradients over all."""
    if job.run.accumulate == 1:
        return 1
    fewest = -int(job.world.max(torch.tensor(-images, device=job.device)))
    return min(job.run.accumulate, fewest)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many top-1 answers are right; of mixed labels (N, K), the one of greatest weight is the right one."""
    target = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.argmax(1) == target).sum().float()


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
    position = job.position
    images = max(position.images, 1.0)
    accuracy = 100.0 * position.correct / images if job.single_label else None
    return Status(epoch + 1, job.epochs, position.loss_sum / images, accuracy)
