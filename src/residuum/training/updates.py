"""One update of the weights: the gradient of a batch, the optimiser's step, and a look at both."""

import math

import torch
from torch import Tensor, nn

from residuum.data.loaders import Batch
from residuum.data.splits import Indices
from residuum.errors import UserError
from residuum.hardware import autocast
from residuum.randomness import derived_seed
from residuum.training.captured import CapturedUpdate, set_rate
from residuum.training.job import Job

MOST_NAMED = 1000


class NonFiniteError(UserError):
    """The loss or the gradient of a batch is NaN or infinite. Raised before the update.

    L-BFGS may then stand at a point of its line search; nothing is saved there. images: the names of the first 1,000 of
    the batch's images, of all processes.
    """

    def __init__(self, what: str, value: float, step: int, images: list[str]) -> None:
        self.step, self.images = step, images
        super().__init__(f"the {what} is {value} at update {step}")


def update(job: Job, batch: Batch[Tensor]) -> None:
    """One update of the weights on one batch. On a GPU it may not be made yet on return; see `settle`."""
    set_rate(job.optimizer, job.lr(job.position.step))
    if job.unseen is None or job.schedule.watches_batches:
        _seen_update(job, batch)
    else:
        _unseen_update(job, batch)


def _seen_update(job: Job, batch: Batch[Tensor]) -> None:
    """Look at loss and gradient before the optimiser's step. L-BFGS asks for both more than once, the others once."""
    counts = [0.0, 0.0, 0.0]

    def closure() -> float:
        nonlocal counts
        _seed(job)
        sums, norm = gradients(job, batch.images, batch.labels)
        counts = sums.tolist()
        mean_loss = counts[0] / counts[2]
        check_finite(job, mean_loss, float(norm), batch.indices)
        return mean_loss

    job.optimizer.step(closure)
    loss_sum, correct, images = counts
    job.schedule.observe_batch(1.0 - correct / images)
    job.position.add(loss_sum, correct, images)


def _unseen_update(job: Job, batch: Batch[Tensor]) -> None:
    """Nothing here asks the device for a number, so it is never waited for."""
    unseen = job.unseen
    assert unseen is not None
    if job.captured is None:

        def make(images: Tensor, labels: Tensor) -> None:
            unseen.note(*gradients(job, images, labels))
            job.optimizer.step()

        job.captured = CapturedUpdate(make, job.optimizer) if job.captures else make
    _seed(job)
    unseen.batches.append((job.position.step, batch.indices))
    job.captured(batch.images, batch.labels)


def _seed(job: Job) -> None:
    """What is random inside the network is a function of (seed, process, update)."""
    if job.draws:
        torch.manual_seed(derived_seed(job.run.seed, f"network/{job.world.rank}", job.position.step))


def settle(job: Job) -> None:
    """Bring the position up to what the device has done.

    Raises NonFiniteError, with the position back at the update that was not made.
    """
    if job.unseen is None or not job.unseen.batches:
        return
    outcome = job.unseen.read()
    job.position.add(outcome.loss_sum, outcome.correct, outcome.images)
    batches, job.unseen.batches = job.unseen.batches, []
    assert outcome.failed or outcome.made == len(batches), f"{outcome.made} of {len(batches)} updates were made"
    if outcome.failed:
        job.position.step, indices = batches[outcome.made]
        check_finite(job, outcome.loss, outcome.norm, indices)


def gradients(job: Job, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the mean loss, clipped to `run.clip_norm` where that is set.

    Returns (3,), summed over all processes: loss summed over images, right answers, images; and the norm that the
    gradient had.
    """
    job.optimizer.zero_grad()
    counts = job.world.sum(forward_and_backward(job, images, labels))
    parameters = [parameter for parameter in job.network.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if job.run.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, job.run.clip_norm, norm)
    return counts, norm


def check_finite(job: Job, loss: float, norm: float, indices: Indices) -> None:
    """Raise NonFiniteError when one of them, the same in every process, is NaN or infinite."""
    for what, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value):
            names = job.loader.split.names
            images = job.world.gather([names[index] for index in indices.tolist()])
            raise NonFiniteError(
                what, value, job.position.step, [name for part in images for name in part][:MOST_NAMED]
            )


def forward_and_backward(job: Job, images: Tensor, labels: Tensor) -> Tensor:
    """Add the gradients of the mean loss of a batch, in `run.accumulate` pieces, to the parameters.

    Returns (3,): the loss summed over images, the number of right answers, the number of images.
    """
    counts = torch.zeros(3, device=job.device)
    images = images.contiguous(memory_format=torch.channels_last)
    total, pieces = _share_of_mean(job, len(images)), _pieces(job, len(images))
    for image_piece, label_piece in zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
        with autocast(job.device, job.dtype):
            logits = job.network(image_piece)
        loss = job.loss(logits.float(), label_piece) * len(image_piece)
        (loss / total).backward()  # type: ignore[no-untyped-call]
        correct = count_correct(logits.detach(), label_piece)
        counts += torch.stack([loss.detach(), correct, torch.full_like(correct, len(image_piece))])
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
    if job.run.accumulate == 1 or job.world.size == 1:
        return min(job.run.accumulate, images)
    fewest = -int(job.world.max(torch.tensor(-images, device=job.device)))
    return min(job.run.accumulate, fewest)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many top-1 answers are right; of mixed labels (N, K), the one of greatest weight is the right one."""
    target = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.argmax(1) == target).sum().float()
