"""Metrics as counts: a pure function from (logits, labels) to sums, added over batches and divided once."""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from residuum.distributed import World

UNKNOWN = -1
Z_95 = 1.959963984540054  # the normal quantile that leaves 2.5 % in each tail


@dataclass(frozen=True)
class Counts:
    """Sums over images, each a tensor on the device of the logits. Counts of disjoint sets of images add up.

    confusion: (K + 1, K + 1), rows true and columns predicted class. The last row holds the images of a class
    that the model does not know, the last column those without an answer: they could not be read, or their
    logits are not numbers. loss: the sum of the cross-entropy in nats over the `judged` images: read, and of a
    known class.
    """

    images: Tensor
    judged: Tensor
    top1: Tensor
    top5: Tensor
    loss: Tensor
    confusion: Tensor

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def summed_over(self, world: World) -> "Counts":
        """The counts of all processes together."""
        return Counts(*(world.sum(getattr(self, f.name)) for f in fields(self)))


def no_counts(classes: int, device: torch.device) -> Counts:
    """The counts of no image at all."""
    zero = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=_sum_type(device), device=device)
    confusion = torch.zeros(classes + 1, classes + 1, dtype=torch.int64, device=device)
    return Counts(zero, zero.clone(), zero.clone(), zero.clone(), loss, confusion)


def count(logits: Tensor, labels: Tensor) -> Counts:
    """Count one batch. logits: (N, K) float; labels: (N,) int64, `UNKNOWN` for a class that the model does
    not have.

    Among equal logits the lower class index ranks first, as in `numpy.argmax`. Not-a-number is never right.
    """
    classes = logits.shape[1]
    known = labels >= 0
    rank = ranks(logits, labels.clamp(min=0))
    losses = F.cross_entropy(logits.float(), labels, ignore_index=UNKNOWN, reduction="none")
    pairs = torch.where(known, labels, classes) * (classes + 1) + _predicted(logits)
    return Counts(
        images=torch.tensor(len(labels), device=logits.device),
        judged=known.sum(),
        top1=((rank < 1) & known).sum(),
        top5=((rank < min(5, classes)) & known).sum(),
        loss=losses.to(_sum_type(logits.device)).sum(),
        confusion=torch.bincount(pairs, minlength=(classes + 1) ** 2).view(classes + 1, classes + 1),
    )


def count_unread(labels: Tensor, classes: int) -> Counts:
    """Count images that could not be read, (N,) labels: errors, of their own class, without a loss."""
    nothing = no_counts(classes, labels.device)
    rows = torch.bincount(torch.where(labels >= 0, labels, classes), minlength=classes + 1)
    nothing.confusion[:, classes] = rows
    return replace(nothing, images=torch.tensor(len(labels), device=labels.device))


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes rank before the true one, from 0. logits: (N, K); labels: (N,) in [0, K); returns
    (N,).
    """
    own = logits.gather(1, labels[:, None])
    below = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return (~(logits <= own) | ((logits == own) & below)).sum(dim=1)


def _predicted(logits: Tensor) -> Tensor:
    """(N,) the class of rank 0; K where a logit is not a number."""
    classes = logits.shape[1]
    index = torch.arange(classes, device=logits.device)
    return torch.where(logits == logits.amax(dim=1, keepdim=True), index, classes).amin(dim=1)


def _sum_type(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, both ends in [0, 1]. Wilson 1927; holds for small counts and near 0
    and 1.
    """
    assert 0 <= successes <= trials > 0
    share, z2 = successes / trials, Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # At the ends the formula gives exactly 0 and 1, the floating point nearly so.
    return centre - half if successes else 0.0, centre + half if successes < trials else 1.0


@dataclass(frozen=True)
class PerClass:
    """Per class, (K,) each: images of it, and precision, recall and F1 in [0, 1]; NaN where the denominator
    is 0.
    """

    images: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def per_class(right: NDArray[np.int64], predicted: NDArray[np.int64], images: NDArray[np.int64]) -> PerClass:
    """Precision, recall and F1 from (K,) counts: predicted rightly, predicted at all, and there at all."""
    return PerClass(images, _ratio(right, predicted), _ratio(right, images), _ratio(2 * right, predicted + images))


def per_class_of_confusion(confusion: NDArray[np.int64]) -> PerClass:
    """The same from the (K + 1, K + 1) confusion matrix of `Counts`."""
    return per_class(np.diag(confusion)[:-1], confusion.sum(axis=0)[:-1], confusion.sum(axis=1)[:-1])


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


@dataclass(frozen=True)
class MultiLabelMetrics:
    """What scores for several labels an image come to, all in [0, 1].

    The mean average precision runs over the classes that an image has, macro F1 over those that one has or is
    said to.
    """

    average_precision: NDArray[np.float64]  # (K,), NaN for a class that no image has
    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    per_class: PerClass


def multi_label_metrics(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> MultiLabelMetrics:
    """Average precision (scikit-learn's) and F1 at a probability of 0.5. Both arguments (N, K); labels 0 or
    1.
    """
    from sklearn.metrics import average_precision_score  # takes a second to import

    present = labels.sum(axis=0, dtype=np.int64)
    precision = np.full(labels.shape[1], np.nan)
    for k in np.flatnonzero(present):
        precision[k] = average_precision_score(labels[:, k], probabilities[:, k])
    said = probabilities >= 0.5
    right = (said & (labels > 0)).sum(axis=0)
    table = per_class(right, said.sum(axis=0), present)
    everything = per_class(*(np.array([part.sum()]) for part in (right, said, present)))
    return MultiLabelMetrics(
        precision,
        _mean(precision[present > 0]),
        float(everything.f1[0]),
        _mean(table.f1[~np.isnan(table.f1)]),
        table,
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
