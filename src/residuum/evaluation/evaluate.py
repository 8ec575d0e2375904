"""Evaluation of anything that turns images into logits: every image of a split counted exactly once."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from residuum.data.loaders import Loader
from residuum.distributed import World
from residuum.errors import UserError, counted
from residuum.evaluation.metrics import (
    Counts,
    PerClass,
    count,
    count_unread,
    multi_label_metrics,
    no_counts,
    per_class_of_confusion,
    wilson_interval,
)
from residuum.hardware import autocast, keep_freed_memory
from residuum.records import Cell, Measurement, Table

Predict = Callable[[Tensor], Tensor]
"""Normalised images (N, C, S, S) float32 to logits (N, K)."""


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on a split.

    images counts every image of the split, the `bad` ones (name, reason) that could not be read and the
    `unknown` ones of a class that the model does not have included: both count as errors. top1, top5:
    accuracy in %, None for multi-label; the last three, in %, for multi-label only. loss: the mean over the
    images that could be read and are of a known class; for multi-label also over the classes.
    """

    images: int
    protocol: str
    loss: Measurement
    per_class: Table
    bad: tuple[tuple[str, str], ...] = ()
    unknown: int = 0
    top1: Measurement | None = None
    top5: Measurement | None = None
    mean_average_precision: Measurement | None = None
    micro_f1: Measurement | None = None
    macro_f1: Measurement | None = None

    @property
    def score(self) -> float:
        """The number to compare models by, in %: top-1 accuracy; mean average precision for multi-label."""
        best = self.mean_average_precision or self.top1
        assert best is not None
        return best.value

    def headline(self) -> Table:
        """The few lines that say it all."""
        measured = {
            "top-1 accuracy": self.top1,
            "top-5 accuracy": self.top5 if len(self.per_class.rows) > 5 else None,
            "mean average precision": self.mean_average_precision,
            "micro F1": self.micro_f1,
            "macro F1": self.macro_f1,
            "loss": self.loss,
        }
        rows = [(name, m.value, m.unit, m.low, m.high) for name, m in measured.items() if m is not None]
        return Table(
            f"{self.images:,} images, {self.protocol}",
            ("measure", "value", "unit", "95 % from", "to"),
            tuple(rows),
            self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.bad:
            name, reason = self.bad[0]
            notes.append(f"counted as errors: {counted(len(self.bad), 'unreadable image')}, first {name}: {reason}")
        if self.unknown:
            notes.append(f"counted as errors: {counted(self.unknown, 'image')} of a class the model does not know")
        if self.bad or self.unknown:
            notes.append("the loss is the mean over the other images")
        return tuple(notes)


def predictor(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Predict:
    """A network as a predict function: on `device`, in evaluation mode, computing in `dtype`.

    Changes the network itself: it stays on that device and in that mode.
    """
    if device.type == "cpu":
        keep_freed_memory()
    network.to(device).eval()

    @torch.inference_mode()
    def predict(images: Tensor) -> Tensor:
        with autocast(device, dtype):
            logits = network(images.to(device).contiguous(memory_format=torch.channels_last))
        return logits.float()

    return predict


def evaluate(
    predict: Predict,
    loader: Loader,
    *,
    classes: Sequence[str],
    multi_label: bool = False,
    world: World | None = None,
) -> Evaluation:
    """Score `predict` on every image that `loader` delivers, in one pass, one view an image.

    In a `world` of several processes each scores its share and all get the same result. Raises UserError for
    an empty split, and when `predict` gives another number of scores than there are classes.
    """
    if not len(loader.split):
        raise UserError("there is no image to evaluate; name a split that has some")
    world = world or World()
    reading = _Reading(predict, loader, len(classes))
    score = _score_labels if multi_label else _score_classes
    with torch.inference_mode():
        return score(reading, len(loader.split), tuple(classes), world)


class _Answers(NamedTuple):
    """What came of one batch: logits (N, K), labels and sample indices of what was read; the same of what was not."""

    logits: Tensor
    labels: Tensor
    indices: Tensor
    unread_labels: Tensor
    unread_indices: Tensor


class _Reading:
    """One pass over a loader: iterates over answers, remembers what it met on the way."""

    def __init__(self, predict: Predict, loader: Loader, classes: int) -> None:
        self._predict, self._loader, self._classes = predict, loader, classes
        self._size = 0
        self._bad: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[_Answers]:
        labels = self._loader.split.labels
        for batch in self._loader.epoch(0):
            self._bad += [(bad.name, bad.reason) for bad in batch.bad]
            logits = torch.zeros(0, self._classes, device=batch.labels.device)
            if len(batch.indices):
                self._size = batch.images.shape[-1]
                logits = self._logits(batch.images)
            unread = torch.from_numpy(labels[batch.bad_indices]).to(batch.labels)
            read, not_read = torch.from_numpy(batch.indices), torch.from_numpy(batch.bad_indices)
            yield _Answers(logits, batch.labels, read, unread, not_read)

    def _logits(self, images: Tensor) -> Tensor:
        logits = self._predict(images)
        if logits.shape != (len(images), self._classes):
            raise UserError(
                f"the model gives scores of shape {tuple(logits.shape)} for {len(images)} images and "
                f"{self._classes} classes; evaluate it on the classes it was trained on"
            )
        return logits

    def gather(self, world: World) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The protocol, and the (name, reason) of every bad image, of all processes."""
        parts = world.gather((self._size, self._bad))
        size = max(size for size, _ in parts)
        return f"1-crop {size}" if size else "1-crop", tuple(image for _, bad in parts for image in bad)


def _score_classes(reading: _Reading, total: int, classes: tuple[str, ...], world: World) -> Evaluation:
    counts: Counts | None = None
    for answers in reading:
        batch = count(answers.logits, answers.labels) + count_unread(answers.unread_labels, len(classes))
        counts = batch if counts is None else counts + batch
    counts = (counts or no_counts(len(classes), _reduction_device(world))).summed_over(world)
    protocol, bad = reading.gather(world)
    assert int(counts.images) == total, "every image counts exactly once"
    confusion = counts.confusion.cpu().numpy()
    return Evaluation(
        images=total,
        protocol=protocol,
        loss=_loss(float(counts.loss), int(counts.judged)),
        per_class=_per_class_table(classes, per_class_of_confusion(confusion)),
        bad=bad,
        unknown=int(confusion[-1].sum()),
        top1=_accuracy(int(counts.top1), total),
        top5=_accuracy(int(counts.top5), total),
    )


def _score_labels(reading: _Reading, total: int, classes: tuple[str, ...], world: World) -> Evaluation:
    """Each process fills the rows of its images; the sum over all processes is the whole."""
    device = _reduction_device(world)
    scores, truth = (torch.zeros(total, len(classes), device=device) for _ in range(2))
    read, unread = (torch.zeros(total, dtype=torch.int64, device=device) for _ in range(2))
    for answers in reading:
        rows, others = answers.indices.to(device), answers.unread_indices.to(device)
        scores[rows], truth[rows] = answers.logits.float().to(device), _yes_or_no(answers.labels, classes).to(device)
        truth[others] = _yes_or_no(answers.unread_labels, classes).to(device)
        read[rows] += 1
        unread[others] += 1
    scores, truth, read, unread = (world.sum(part).cpu() for part in (scores, truth, read, unread))
    protocol, bad = reading.gather(world)
    assert bool((read + unread == 1).all()), "every image counts exactly once"
    loss = F.binary_cross_entropy_with_logits(scores.double(), truth.double(), reduction="none").mean(dim=1)
    probabilities = scores.sigmoid().nan_to_num(0.0)  # what is not a number says nothing,
    probabilities[unread > 0] = 0.0  # nor does what could not be read
    metrics = multi_label_metrics(probabilities.numpy(), truth.numpy().astype(np.uint8))
    return Evaluation(
        images=total,
        protocol=protocol,
        loss=_loss(float(loss[read > 0].sum()), int(read.sum())),
        per_class=_per_class_table(classes, metrics.per_class, metrics.average_precision),
        bad=bad,
        mean_average_precision=_percent(metrics.mean_average_precision),
        micro_f1=_percent(metrics.micro_f1),
        macro_f1=_percent(metrics.macro_f1),
    )


def _yes_or_no(labels: Tensor, classes: Sequence[str]) -> Tensor:
    """(N, K) float32 rows as they are; of one label an image, (N,) int64, ones at the labels, none for -1."""
    if labels.ndim == 2:
        return labels
    return F.one_hot(labels + 1, len(classes) + 1)[:, 1:].float()


def _reduction_device(world: World) -> torch.device:
    """Where tensors can be summed over all processes, before any image has said where it lives."""
    if world.size > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", world.local_rank)
    return torch.device("cpu")


def _accuracy(right: int, total: int) -> Measurement:
    low, high = wilson_interval(right, total)
    return Measurement(100 * right / total, "%", 100 * low, 100 * high)


def _percent(share: float) -> Measurement:
    return Measurement(100 * share, "%")


def _loss(loss_sum: float, images: int) -> Measurement:
    return Measurement(loss_sum / images if images else math.nan, "nats")


def _per_class_table(
    classes: tuple[str, ...], scores: PerClass, average_precision: NDArray[np.float64] | None = None
) -> Table:
    columns: dict[str, NDArray[np.float64]] = {
        "precision": scores.precision,
        "recall": scores.recall,
        "F1": scores.f1,
    }
    if average_precision is not None:
        columns["average precision"] = average_precision
    measured = zip(*((_cell(share) for share in column) for column in columns.values()), strict=True)
    rows = zip(classes, scores.images.tolist(), measured, strict=True)
    return Table(
        "Per class, in %",
        ("class", "images", *columns),
        tuple((name, images, *cells) for name, images, cells in rows),
    )


def _cell(share: float) -> Cell:
    return None if math.isnan(share) else 100 * float(share)
