"""Metrics: pure functions of logits and labels, and of counts."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNKNOWN = -1
Z_95 = 1.959963984540054  # the normal quantile that leaves 2.5 % in each tail


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes rank before the true one, from 0. logits: (N, K); labels: (N,) in [0, K); returns
    (N,).
    """
    own = logits.gather(1, labels[:, None])
    below = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return (~(logits <= own) | ((logits == own) & below)).sum(dim=1)


def predicted(logits: Tensor) -> Tensor:
    """(N,) the class of rank 0 for logits (N, K); K where a logit is not a number."""
    classes = logits.shape[1]
    index = torch.arange(classes, device=logits.device)
    return torch.where(logits == logits.amax(dim=1, keepdim=True), index, classes).amin(dim=1)


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
    """The same from the (K + 1, K + 1) confusion matrix of `Answers`."""
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
