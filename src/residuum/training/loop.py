"""The training loop: one epoch after another, one step after another, in sight."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from residuum.data.loaders import Batch, Loader
from residuum.data.storage import WorkerDiedError
from residuum.distributed import World
from residuum.errors import UserError
from residuum.evaluation.evaluate import Evaluation
from residuum.hardware import autocast
from residuum.randomness import derived_seed
from residuum.training.checkpoints import restore_optimizer, save_checkpoint
from residuum.training.ema import WeightAverage
from residuum.training.interruption import Interrupted, StopRequest
from residuum.training.losses import Loss
from residuum.training.progress import Reporter, Status
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder
from residuum.training.schedules import Schedule


class NonFiniteLossError(UserError):
    """The loss of a batch is NaN or infinite. Raised before the update, so the weights are still those of `step`."""

    def __init__(self, step: int, loss: float, indices: list[int]) -> None:
        self.step, self.loss, self.indices = step, loss, indices
        super().__init__(f"the loss is {loss} at step {step}")


@dataclass
class Position:
    """How far training has come: all that must survive an interruption beside tensors and the schedule."""

    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    images: float = 0.0
    seconds: float = 0.0
    epochs_recorded: int = 0
    best: float | None = None
    best_epoch: int = 0

    def add(self, loss_sum: float, correct: float, images: float) -> None:
        self.loss_sum += loss_sum
        self.correct += correct
        self.images += images

    def start_epoch(self) -> None:
        self.loss_sum, self.correct, self.images, self.seconds = 0.0, 0.0, 0.0, 0.0


@dataclass
class Job:
    """Everything one training run works with. `evaluate` scores a network on the split that training watches."""

    run: Run
    network: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    loader: Loader
    watched: str
    evaluate: Callable[[nn.Module], Evaluation]
    save_best: Callable[[nn.Module], None]
    folder: RunFolder
    reporter: Reporter
    device: torch.device
    dtype: torch.dtype
    single_label: bool
    world: World
    average: WeightAverage | None = None
    position: Position = field(default_factory=Position)

    @property
    def total_steps(self) -> int:
        return self.run.total_iterations(len(self.loader))

    @property
    def epochs(self) -> int:
        return math.ceil(self.total_steps / len(self.loader))

    @property
    def evaluated_network(self) -> nn.Module:
        """The network whose scores count: the weight average where one is kept."""
        if self.average is not None:
            return self.average.network
        return unwrapped(self.network)

    def state(self) -> dict[str, Any]:
        return {
            "network": unwrapped(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "position": asdict(self.position),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        unwrapped(self.network).load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.position = Position(**state["position"])
        if self.world.is_main:
            self.folder.truncate_metrics(self.position.epochs_recorded)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, without the wrapper that shares gradients between processes."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def fit(job: Job, stop: StopRequest) -> None:
    """Train until the run's duration is reached or early stopping ends it.

    Raises Interrupted, with the state saved, when `stop` asks for it, and NonFiniteLossError before a bad update.
    """
    steps_per_epoch = len(job.loader)
    for epoch in range(job.position.step // steps_per_epoch, job.epochs):
        if stopped_early(job):
            break
        end = min((epoch + 1) * steps_per_epoch, job.total_steps)
        job.network.train()
        clock = time.monotonic()
        for batch in batches(job, epoch, stop):
            train_step(job, batch)
            job.position.seconds += time.monotonic() - clock
            clock = time.monotonic()
            job.reporter.step(job.position.step, len(batch.indices) * job.world.size, _status(job, epoch))
            if job.position.step == end:
                break
            leave_if_asked(job, stop)
        finish_epoch(job, epoch)
        leave_if_asked(job, stop)


def batches(job: Job, epoch: int, stop: StopRequest) -> Iterator[Batch]:
    """The rest of the epoch, from where training stands."""
    try:
        yield from job.loader.epoch(epoch, start=job.position.step - epoch * len(job.loader))
    except WorkerDiedError:
        # A signal to the whole process group stops the workers too; this process then stands between two updates.
        if job.world.size == 1:
            leave_if_asked(job, stop)
        raise


def train_step(job: Job, batch: Batch) -> None:
    """One update on one batch, in `run.accumulate` pieces. L-BFGS calls the closure more than once, the others once."""
    position, run = job.position, job.run
    network_seed = derived_seed(run.seed, f"network/{job.world.rank}", position.step)
    for group in job.optimizer.param_groups:
        group["lr"] = job.schedule.lr(position.step)
    counts = torch.zeros(3)

    def closure() -> float:
        nonlocal counts
        job.optimizer.zero_grad()
        torch.manual_seed(network_seed)
        counts = job.world.sum(forward_and_backward(job, batch)).cpu()
        mean_loss = float(counts[0] / counts[2])
        if not math.isfinite(mean_loss):
            raise NonFiniteLossError(position.step, mean_loss, batch.indices.tolist())
        if run.clip_norm:
            nn.utils.clip_grad_norm_(job.network.parameters(), run.clip_norm)
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


def forward_and_backward(job: Job, batch: Batch) -> Tensor:
    """Add the gradients of the mean loss of `batch` to the parameters.

    Returns (3,): the loss summed over images, the number of right answers, the number of images.
    """
    counts = torch.zeros(3, device=job.device)
    images = batch.images.contiguous(memory_format=torch.channels_last)
    total, pieces = len(images), min(job.run.accumulate, len(images))
    for image_piece, label_piece in zip(images.tensor_split(pieces), batch.labels.tensor_split(pieces), strict=True):
        with autocast(job.device, job.dtype):
            logits = job.network(image_piece)
        loss = job.loss(logits.float(), label_piece) * len(image_piece)
        (loss / total).backward()  # type: ignore[no-untyped-call]
        correct = count_correct(logits.detach(), label_piece)
        counts += torch.stack([loss.detach(), correct, correct.new_tensor(len(image_piece))])
    return counts


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many top-1 answers are right; of mixed labels (N, K), the one of greatest weight is the right one."""
    target = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.argmax(1) == target).sum().float()


def finish_epoch(job: Job, epoch: int) -> None:
    """Measure, record, let the schedule see the result, keep the best weights, and save."""
    position = job.position
    if not position.images:
        raise UserError("none of the training images can be read; run residuum check on the data")
    record = training_record(job, epoch)
    if position.step == job.total_steps or (epoch + 1) % job.run.evaluate_every == 0:
        evaluation = job.evaluate(job.evaluated_network)
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
        "lr": job.schedule.lr(position.step - 1),
        "train_loss": position.loss_sum / position.images,
        "train_error": 100.0 * (1.0 - position.correct / position.images) if job.single_label else None,
        "images": int(position.images),
        "seconds": round(position.seconds, 3),
    }


def stopped_early(job: Job) -> bool:
    """True when the watched score has not improved for `run.early_stopping` epochs."""
    patience = job.run.early_stopping
    return patience > 0 and job.position.step // len(job.loader) - job.position.best_epoch >= patience


def save(job: Job) -> None:
    """Write a checkpoint of this very moment."""
    save_checkpoint(job.folder.checkpoints, job.position.step, job.state())


def leave_if_asked(job: Job, stop: StopRequest) -> None:
    """Save and raise Interrupted when any process was asked to stop: all leave after the same step."""
    asked = stop.signal_number
    if job.world.size > 1:
        asked = int(job.world.max(torch.tensor(asked, device=job.device)))
    if asked:
        if job.world.is_main:
            save(job)
        job.world.barrier()  # a process that leaves takes the others with it
        raise Interrupted(asked, job.folder.path)


def _status(job: Job, epoch: int) -> Status:
    position = job.position
    images = max(position.images, 1.0)
    accuracy = 100.0 * position.correct / images if job.single_label else None
    return Status(epoch + 1, job.epochs, position.loss_sum / images, accuracy)
