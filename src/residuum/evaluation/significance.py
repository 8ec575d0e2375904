"""How sure a measured number is: bootstrap intervals, and two models compared on the same images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from residuum.evaluation.metrics import UNKNOWN, wilson_interval
from residuum.records import Measurement

Floats = NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""Of R resamples, (R, N) how often each holds each of N images, to the (R,) values of a measure; NaN without one."""

_CHUNK = 2**21  # counts held at a time: 16 MiB of float64, and about as much again in a statistic


def bootstrap_interval(statistic: Statistic, images: int, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over images, resampled with replacement.

    Resamples without a value are left out; (NaN, NaN) where none has one. Efron and Tibshirani 1993, section
    13.3.
    """
    values = bootstrap(statistic, images, resamples, seed)
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, (0.025, 0.975), method="inverted_cdf")  # of the values: they may be infinite
    return float(low), float(high)


def bootstrap(statistic: Statistic, images: int, resamples: int = 1000, seed: int = 0) -> Floats:
    """(resamples,) the values of a statistic; a pure function of its arguments, in bounded memory."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // images)
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([statistic(_counts(generator, part, images)) for part in parts])


def _counts(generator: np.random.Generator, resamples: int, images: int) -> Floats:
    counts = np.empty((resamples, images))
    for row in counts:
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return counts


# Statistics.


def mean_of(values: NDArray[np.floating[Any]]) -> Statistic:
    """The mean of (N,) values, such as losses, over those that are not NaN; infinite with one that is."""
    known, endless = ~np.isnan(values), values == np.inf
    parts = np.stack([np.where(known & ~endless, values, 0.0), known, endless], axis=1, dtype=np.float64)

    def statistic(counts: Floats) -> Floats:
        total, number, infinities = np.hsplit(counts @ parts, 3)
        total[infinities > 0] = np.inf  # and not 0 times infinity, where the resample has none of them
        return _mean_ratio(total, number)

    return statistic


def macro_f1(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> Statistic:
    """The mean F1, in [0, 1], over the classes that an image has or is said to have. labels, predictions: (N,), -1
    for none.
    """
    right = np.where(labels == predictions, labels, UNKNOWN)
    counted = [sums_by_group(groups, classes) for groups in (right, labels, predictions)]

    def statistic(counts: Floats) -> Floats:
        hits, images, said = (sums(counts) for sums in counted)
        return _mean_ratio(2 * hits, images + said)

    return statistic


def sums_by_group(groups: NDArray[np.int64], number: int) -> Callable[[Floats], Floats]:
    """A function from (R, N) values to (R, number): their sums over the columns of each of N groups; -1 is in none."""
    order = np.argsort(groups, kind="stable")[np.count_nonzero(groups < 0) :]
    present, starts = np.unique(groups[order], return_index=True)

    def sums(values: Floats) -> Floats:
        found = np.zeros((len(values), number))
        if len(present):
            found[:, present] = np.add.reduceat(values[:, order], starts, axis=1)
        return found

    return sums


def mean_average_precision(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Statistic:
    """The mean over classes of scikit-learn's average precision, in [0, 1], over those that an image has.

    labels: (N, K), 0 or 1; probabilities: (N, K), NaN taken for 0. Each class is sorted once.
    """
    scores = np.nan_to_num(probabilities, nan=0.0)
    rankings = [_ranking(labels[:, k] > 0, scores[:, k]) for k in np.flatnonzero(labels.any(axis=0))]

    def statistic(counts: Floats) -> Floats:
        if not rankings:
            return np.full(len(counts), np.nan)
        sums, found = zip(*(_precisions(ranking, counts) for ranking in rankings), strict=True)
        return _mean_ratio(np.stack(sums, axis=1), np.stack(found, axis=1))

    return statistic


class _Ranking(NamedTuple):
    """A class's images by falling score, in G stretches, each of which ends at a score that an image of the class has.

    order: all images down to the last such score; positives: those of the class. Their stretches start at starts
    and positive_starts, (G,) each.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    positives: NDArray[np.int64]
    positive_starts: NDArray[np.int64]


def _ranking(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> _Ranking:
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    positives = order[truth[order]]
    thresholds, positive_starts = np.unique(-scores[positives], return_index=True)
    ends = np.searchsorted(falling, thresholds, side="right")
    return _Ranking(order[: ends[-1]], np.concatenate([[0], ends[:-1]]), positives, positive_starts)


def _precisions(ranking: _Ranking, counts: Floats) -> tuple[Floats, Floats]:
    """(R,) the sum over the images of the class of the precision at their score, and (R,) how many they are."""
    ranked = np.add.reduceat(counts[:, ranking.order], ranking.starts, axis=1).cumsum(axis=1)
    hits = np.add.reduceat(counts[:, ranking.positives], ranking.positive_starts, axis=1)
    found = hits.cumsum(axis=1)
    precision = np.divide(found, ranked, out=np.zeros_like(found), where=ranked > 0)
    return (hits * precision).sum(axis=1), found[:, -1]


def _mean_ratio(parts: Floats, wholes: Floats) -> Floats:
    """(R, K) each: the (R,) means of part / whole over the K that have a whole; NaN where none has."""
    defined = wholes > 0
    ratios = np.divide(parts, wholes, out=np.zeros_like(parts), where=defined)
    number = defined.sum(axis=1)
    return np.divide(ratios.sum(axis=1), number, out=np.full(len(parts), np.nan), where=number > 0)


# Two models on the same images.


@dataclass(frozen=True)
class McNemar:
    """How many images both models got right, only one of them, or neither.

    p_value: how probable it is, were the two equally good, that the images which only one got right are shared out
    this unevenly or more so.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Compare two models on the same (N,) images: McNemar 1947, with the exact two-sided binomial test."""
    from scipy.stats import binomtest  # takes a second to import

    both, only_first, only_second, neither = _shared_out(first_right, second_right)
    apart = only_first + only_second
    p_value = float(binomtest(only_first, apart).pvalue) if apart else 1.0
    return McNemar(both, only_first, only_second, neither, p_value)


def paired_difference(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> Measurement:
    """The accuracy of the first model less that of the second, on the same (N,) images, in percentage points.

    With the 95 % interval of Newcombe 1998, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", method 10: Wilson's intervals of both, squared and added under the
    correlation of the pairs.
    """
    both, only_first, only_second, neither = _shared_out(first_right, second_right)
    images = len(first_right)
    difference = (only_first - only_second) / images
    first, low_1, high_1 = _share(both + only_first, images)
    second, low_2, high_2 = _share(both + only_second, images)
    phi = _correlation(both, only_first, only_second, neither)
    down = _joint(first - low_1, high_2 - second, phi)
    up = _joint(high_1 - first, second - low_2, phi)
    return Measurement(100 * difference, "percentage points", 100 * (difference - down), 100 * (difference + up))


def _shared_out(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    assert first.shape == second.shape == (len(first),), "both models answer the same images"
    groups = np.bincount(2 * ~first + ~second, minlength=4)
    both, only_first, only_second, neither = groups.tolist()
    return both, only_first, only_second, neither


def _share(right: int, images: int) -> tuple[float, float, float]:
    return right / images, *wilson_interval(right, images)


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Newcombe's phi: towards 0 by a correction for continuity, and 0 where a model is always or never right."""
    images = both + only_first + only_second + neither
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    excess = both * neither - only_first * only_second
    corrected = max(excess - images / 2, 0) if excess >= 0 else excess
    return corrected / math.sqrt(margins) if margins else 0.0


def _joint(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0))
