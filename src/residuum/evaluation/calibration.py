"""Whether a model's probabilities mean what they say, and the temperature that mends them.

Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks".
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from residuum.errors import UserError
from residuum.evaluation.significance import Floats, Statistic, bootstrap_interval, sums_by_group
from residuum.records import Measurement, Series, Table

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_NEAR = 1e-3  # of the logarithm of a bound

_ROWS = 1024  # of logits at a time: in double precision they stay in the processor's cache


@dataclass(frozen=True)
class Reliability:
    """How often a model is right when it says how sure it is. Guo et al. 2017, section 2.

    edges: (B + 1) confidences from 0 to 1; a bin holds its upper edge. counts: (B,) images. confidence, accuracy:
    (B,) means in [0, 1], NaN for an empty bin. ece: the expected calibration error in %, the mean over images of
    the gap between the two, with its 95 % bootstrap interval; NaN without any image. It is never negative, so that
    chance alone makes it larger, in a resample still more so: the interval therefore lies mostly below it.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    ece: Measurement

    def table(self) -> Table:
        """One row a bin: its edges, images, mean confidence and accuracy in %."""
        ends = [f"{100 * edge:.3g}" for edge in self.edges]
        bins = zip(pairwise(ends), self.counts, self.confidence, self.accuracy, strict=True)
        return Table(
            "Reliability, in %",
            ("bin", "images", "confidence", "accuracy"),
            tuple((f"{low} to {high}", images, _cell(said), _cell(right)) for (low, high), images, said, right in bins),
        )

    def series(self) -> tuple[Series, Series]:
        """Accuracy over confidence in %, of the bins that hold an image; and the diagonal, where both are the same."""
        points = [
            (100 * said, 100 * right)
            for said, right in zip(self.confidence, self.accuracy, strict=True)
            if not math.isnan(said)
        ]
        labels = ("confidence (%)", "accuracy (%)")
        curve = Series("model", tuple(x for x, _ in points), tuple(y for _, y in points), *labels)
        return curve, Series("perfect calibration", (0.0, 100.0), (0.0, 100.0), *labels, is_reference=True)


def _cell(share: float) -> float | None:
    return None if math.isnan(share) else 100 * share


def reliability(confidences: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """The reliability of answers in bins of equal width. confidences: (N,) in [0, 1]; right: (N,).

    Images without an answer, of NaN confidence, are left out: nothing was said of them.
    """
    answered = ~np.isnan(confidences)
    said, was_right = confidences[answered].astype(np.float64), right[answered].astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    groups = _bins(said, bins)
    counts = np.bincount(groups, minlength=bins)
    confidence, accuracy = (_means(values, groups, counts) for values in (said, was_right))
    return Reliability(
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        tuple(confidence.tolist()),
        tuple(accuracy.tolist()),
        _measured(calibration_error(said, was_right, bins), len(said)),
    )


def _bins(confidences: Floats, bins: int) -> NDArray[np.int64]:
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidences, side="left")


def _means(values: Floats, groups: NDArray[np.int64], counts: NDArray[np.int64]) -> Floats:
    sums = np.bincount(groups, weights=values, minlength=len(counts))
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def calibration_error(confidences: Floats, right: Floats, bins: int = 15) -> Statistic:
    """The expected calibration error in [0, 1] as a statistic over images. confidences: (N,) in [0, 1]; right: (N,) 0
    or 1.
    """
    gaps, by_bin = confidences - right, sums_by_group(_bins(confidences, bins), bins)

    def statistic(counts: Floats) -> Floats:
        return np.abs(by_bin(counts * gaps)).sum(axis=1) / counts.sum(axis=1)

    return statistic


def _measured(error: Statistic, images: int) -> Measurement:
    if not images:
        return Measurement(math.nan, "%")
    value = float(error(np.ones((1, images)))[0])
    low, high = _mirrored(value, *bootstrap_interval(error, images))
    return Measurement(100 * value, "%", 100 * low, 100 * high)


def _mirrored(value: float, low: float, high: float) -> tuple[float, float]:
    """The basic bootstrap interval (Davison and Hinkley 1997, section 5.2) from the percentile interval of an error
    that resampling makes larger: mirrored at its value, it allows for that. Never below 0, and around the value. In
    simulations with 1,000 to 10,000 images it holds a true error above 1 % some nine times in ten, the percentile
    interval of a small one never.
    """
    return max(0.0, 2 * value - high), max(value, 2 * value - low)


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """The temperature in [0.05, 20] by which to divide logits so that their cross-entropy is least.

    logits: (N, K); labels: (N,) int64 class indices, for the softmax, or (N, K) 0 or 1, for a sigmoid a class.
    Left out are rows of logits that are not finite and labels of -1. The loss is convex in 1 / T; the ranking of
    classes stays as it is. Guo et al. 2017, section 4.2. Raises UserError when no image is left,
    and when there is no best temperature within the bounds.
    """
    from scipy.optimize import minimize_scalar  # takes a second to import

    usable = np.isfinite(logits).all(axis=1)
    if labels.ndim == 1:
        usable &= labels >= 0
    if not usable.any():
        raise UserError("no image has finite scores and a known class to fit the temperature on; fit it on other data")
    bounds = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    scores, truth = torch.from_numpy(logits[usable]), torch.from_numpy(labels[usable])
    result = minimize_scalar(
        lambda log_temperature: _cross_entropy(scores, truth, math.exp(log_temperature)),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-6},
    )
    if min(abs(result.x - bound) for bound in bounds) < _NEAR or not _is_wrong_anywhere(scores, truth):
        raise UserError(
            f"these {len(scores):,} images determine no temperature: the model is right, or as good as guessing, on "
            "all of them; fit it on more images, or on others"
        )
    return math.exp(result.x)


def _is_wrong_anywhere(logits: Tensor, labels: Tensor) -> bool:
    if labels.ndim == 1:
        return bool((logits.argmax(dim=1) != labels).any())
    return bool(((logits > 0) != (labels > 0)).any())


def _cross_entropy(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """The mean over images in double precision, of several labels an image over the classes too."""
    parts = [slice(start, start + _ROWS) for start in range(0, len(logits), _ROWS)]
    return sum(float(_summed(logits[part].double() / temperature, labels[part])) for part in parts) / len(logits)


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum") / logits.shape[1]
