"""Evaluation of anything that turns images into logits: every image of a split counted exactly once."""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from residuum.data.loaders import Batch
from residuum.data.splits import Indices, Split
from residuum.data.workers import Progress
from residuum.distributed import World
from residuum.errors import UserError
from residuum.evaluation.answers import Answers, LabelAnswers
from residuum.evaluation.metrics import UNKNOWN, predicted, ranks
from residuum.evaluation.scores import Evaluation, evaluation_of
from residuum.evaluation.views import Predict
from residuum.hardware import autocast, keep_freed_memory, upload

Seen = TypeVar("Seen")

BadImages = tuple[tuple[str, str], ...]
"""Name and reason of each image that could not be read."""


class Images(Protocol[Seen]):
    """Batches of a split, each image once over all processes; a loader."""

    @property
    def split(self) -> Split: ...

    def epoch(self, epoch: int) -> Iterator[Batch[Seen]]: ...


def predictor(network: nn.Module, device: torch.device, dtype: torch.dtype, temperature: float = 1.0) -> Predict:
    """A network as a predict function: on `device`, in evaluation mode, computing in `dtype`.

    The logits are divided by `temperature`. Changes the network itself: it stays on that device and in that mode.
    """
    if device.type == "cpu":
        keep_freed_memory()
    network.to(device).eval()

    @torch.inference_mode()
    def predict(images: Tensor) -> Tensor:
        with autocast(device, dtype):
            logits = network(images.to(device).contiguous(memory_format=torch.channels_last))
        return logits.float() / temperature

    return predict


def evaluate(
    predict: Callable[[Seen], Tensor],
    images: Images[Seen],
    *,
    classes: Sequence[str],
    protocol: str,
    multi_label: bool = False,
    world: World | None = None,
) -> Evaluation:
    """Score `predict` on every image of a split, in one pass. protocol: the name of how it looks at them.

    In a `world` of several processes each scores its share and all get the same result. Raises UserError for
    an empty split, and when `predict` gives another number of scores than there are classes.
    """
    (answers,), bad = answer(
        lambda batch: (predict(batch),), images, models=1, classes=classes, multi_label=multi_label, world=world
    )
    return evaluation_of(answers, protocol, bad)


def answer(
    predict: Callable[[Seen], Sequence[Tensor]],
    images: Images[Seen],
    *,
    models: int,
    classes: Sequence[str],
    multi_label: bool = False,
    world: World | None = None,
    progress: Progress | None = None,
) -> tuple[list[Answers | LabelAnswers], BadImages]:
    """What each of several `models` says of every image of a split, and what could not be read.

    `predict` gives the logits (N, K) of each of them for a batch. `progress` is told how far it is, in images.
    Processes and errors as in `evaluate`.
    """
    if not len(images.split):
        raise UserError("there is no image to evaluate; name a split that has some")
    world = world or World()
    collected = [_Collected(images.split, tuple(classes), multi_label) for _ in range(models)]
    bad: list[tuple[str, str]] = []
    done = 0
    with torch.inference_mode():
        for batch in images.epoch(0):
            bad += [(image.name, image.reason) for image in batch.bad]
            if len(batch.indices):
                for own, logits in zip(collected, predict(batch.images), strict=True):
                    own.add(_checked(logits, len(batch.indices), len(classes)), batch.labels, batch.indices)
            done += world.size * (len(batch.indices) + len(batch.bad))
            if progress is not None:
                progress(min(done, len(images.split)), len(images.split))
    everywhere = tuple(image for part in world.gather(bad) for image in part)
    answers = [own.over(world) for own in collected]
    assert all(own.images_read + len(everywhere) == len(images.split) for own in collected), "every image counts once"
    return answers, everywhere


def _checked(logits: Tensor, images: int, classes: int) -> Tensor:
    if logits.shape != (images, classes):
        raise UserError(
            f"the model gives scores of shape {tuple(logits.shape)} for {images} images and "
            f"{classes} classes; evaluate it on the classes it was trained on"
        )
    return logits.float()


class _Collected:
    """Rows of numbers, one an image, on the device, filled batch by batch; nothing is read back before the end."""

    def __init__(self, split: Split, classes: tuple[str, ...], multi_label: bool) -> None:
        self._split, self._classes, self._multi_label = split, classes, multi_label
        self._rows: Tensor | None = None  # (images, columns) float32; all zeros where an image was not read
        self.images_read = 0

    def add(self, logits: Tensor, labels: Tensor, indices: Indices) -> None:
        """Of one batch: logits (N, K), labels (N,) or (N, K), sample indices (N,)."""
        numbers = (_numbers_of_labels if self._multi_label else _numbers)(logits, labels.to(logits.device))
        if self._rows is None:
            self._rows = self._blank(logits.device)
        self._rows[upload(indices, logits.device)] = torch.cat([torch.ones_like(numbers[:, :1]), numbers], dim=1)

    def _blank(self, device: torch.device) -> Tensor:
        columns = 1 + len(self._classes) if self._multi_label else 4
        return torch.zeros(len(self._split), 1 + columns, device=device)

    def over(self, world: World) -> Answers | LabelAnswers:
        """The rows of all processes together."""
        rows = self._blank(_reduction_device(world)) if self._rows is None else self._rows
        table = world.sum(rows).cpu().numpy()
        read = table[:, 0] > 0
        self.images_read = int(read.sum())
        table[~read, 1:] = np.nan
        names, labels = self._split.names, self._split.labels
        if self._multi_label:
            rows_of_labels = yes_or_no(torch.from_numpy(labels), self._classes).numpy().astype(np.uint8)
            return LabelAnswers(names, self._classes, rows_of_labels, table[:, 2:], table[:, 1])
        predictions, ranks_, losses, confidences = table[:, 1:].T
        return Answers(
            names, self._classes, labels.astype(np.int64), _whole(predictions), confidences, _whole(ranks_), losses
        )


def _numbers(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, 4): prediction, rank of the true class, loss, confidence; the first two -1 where there is none.

    The loss of an image of an unknown class is not a number, that of scores which are no numbers infinite.
    """
    confidence = logits.softmax(dim=1).amax(dim=1)
    known, answered = labels != UNKNOWN, ~confidence.isnan()
    prediction = torch.where(answered, predicted(logits), -1)
    rank = torch.where(answered & known, ranks(logits, labels.clamp(min=0)), -1)
    loss = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    loss = loss.nan_to_num(torch.inf, torch.inf).masked_fill(~known, torch.nan)
    return torch.stack([prediction.float(), rank.float(), loss, confidence], dim=1)


def _numbers_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, 1 + K): loss, and the probability of each class."""
    truth = yes_or_no(labels, range(logits.shape[1]))
    loss = F.softplus(logits * (1 - 2 * truth)).mean(dim=1, keepdim=True)  # exact also where it is small
    return torch.cat([loss.nan_to_num(torch.inf, torch.inf), logits.sigmoid()], dim=1)


def _whole(column: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.nan_to_num(column, nan=-1.0).astype(np.int64)


def yes_or_no(labels: Tensor, classes: Sized) -> Tensor:
    """(N, K) float32 rows as they are; of one label an image, (N,) int64, ones at the labels, none for -1."""
    if labels.ndim == 2:
        return labels.float()
    return F.one_hot(labels + 1, len(classes) + 1)[:, 1:].float()


def _reduction_device(world: World) -> torch.device:
    """Where tensors can be summed over all processes, before any image has said where it lives."""
    if world.size > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", world.local_rank)
    return torch.device("cpu")
