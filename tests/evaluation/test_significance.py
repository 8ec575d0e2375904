"""Statistics of resamples equal scikit-learn's with weights, and the intervals hold what they promise."""

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from residuum.evaluation.metrics import multi_label_metrics
from residuum.evaluation.significance import (
    Statistic,
    bootstrap,
    bootstrap_interval,
    macro_f1,
    mcnemar,
    mean_average_precision,
    mean_of,
    paired_difference,
)

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def resample(generator: np.random.Generator, images: int) -> NDArray[np.int64]:
    return np.bincount(generator.integers(images, size=images), minlength=images)


def value(statistic: Statistic, counts: NDArray[np.int64]) -> float:
    (found,) = statistic(counts[None].astype(np.float64))
    return float(found)


@few
@given(seeds, st.integers(1, 60), st.integers(1, 6), st.integers(1, 8))
def test_mean_average_precision_equals_scikit_learn_with_weights_and_ties(
    seed: int, images: int, classes: int, levels: int
) -> None:
    generator = np.random.default_rng(seed)
    probabilities = (generator.integers(0, levels + 1, (images, classes)) / levels).astype(np.float32)
    labels = (generator.random((images, classes)) < 0.3).astype(np.uint8)
    counts = resample(generator, images)
    expected = [
        average_precision_score(labels[:, k], probabilities[:, k], sample_weight=counts)
        for k in range(classes)
        if counts @ labels[:, k]
    ]
    found = value(mean_average_precision(labels, probabilities), counts)
    assert found == pytest.approx(np.mean(expected) if expected else math.nan, nan_ok=True)


def test_mean_average_precision_of_the_images_themselves_is_the_metric() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random((300, 5), dtype=np.float32)
    labels = (generator.random((300, 5)) < 0.2).astype(np.uint8)
    probabilities[7] = np.nan  # could not be read
    expected = multi_label_metrics(np.nan_to_num(probabilities), labels).mean_average_precision
    assert value(mean_average_precision(labels, probabilities), np.ones(300, int)) == pytest.approx(expected)


@few
@given(seeds, st.integers(1, 60), st.integers(1, 6))
def test_macro_f1_equals_scikit_learn_on_the_resample(seed: int, images: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    labels, predictions = generator.integers(-1, classes, (2, images))
    counts = resample(generator, images)
    true, said = np.repeat(labels, counts), np.repeat(predictions, counts)
    seen = sorted({*true.tolist(), *said.tolist()} - {-1})
    expected = f1_score(true, said, labels=seen, average="macro") if seen else math.nan
    assert value(macro_f1(labels, predictions, classes), counts) == pytest.approx(expected, nan_ok=True)


@few
@given(seeds, st.integers(1, 60))
def test_the_mean_is_over_what_is_a_number(seed: int, images: int) -> None:
    generator = np.random.default_rng(seed)
    values = np.where(generator.random(images) < 0.2, np.nan, generator.normal(size=images)).astype(np.float32)
    counts = resample(generator, images)
    numbers = np.repeat(values, counts)
    numbers = numbers[~np.isnan(numbers)]
    expected = numbers.astype(np.float64).mean() if len(numbers) else math.nan
    assert value(mean_of(values), counts) == pytest.approx(expected, nan_ok=True)


def test_an_infinite_loss_makes_the_mean_of_the_resamples_that_hold_it_infinite() -> None:
    statistic = mean_of(np.array([1.0, 3.0, math.inf]))
    assert value(statistic, np.array([1, 2, 0])) == pytest.approx(7 / 3)
    assert value(statistic, np.array([1, 1, 1])) == math.inf
    assert bootstrap_interval(statistic, 3) == (1, math.inf)


def test_every_resample_draws_as_many_images_and_the_seed_decides_which() -> None:
    seen = []

    def statistic(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        seen.append(counts)
        return counts[:, 0]

    bootstrap(statistic, 50, resamples=20)
    (counts,) = seen
    assert counts.shape == (20, 50)
    assert set(counts.sum(axis=1)) == {50}
    assert len({tuple(row) for row in counts}) == 20
    assert np.array_equal(bootstrap(statistic, 50, 20), counts[:, 0])
    assert not np.array_equal(bootstrap(statistic, 50, 20, seed=1), counts[:, 0])


def test_the_split_into_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = mean_of(np.random.default_rng(0).normal(size=40))
    whole = bootstrap(statistic, 40, 25)
    for size in (1, 40 * 7, 40 * 25):
        monkeypatch.setattr("residuum.evaluation.significance._CHUNK", size)
        assert bootstrap(statistic, 40, 25) == pytest.approx(whole, rel=1e-12)


def test_memory_stays_bounded_with_many_images() -> None:
    generator = np.random.default_rng(0)
    labels, probabilities = (generator.random((50_000, 2)) < 0.5).astype(np.uint8), generator.random((50_000, 2))
    statistics = [
        mean_average_precision(labels, probabilities.astype(np.float32)),
        macro_f1(labels[:, 0].astype(np.int64), labels[:, 1].astype(np.int64), 2),
        mean_of(probabilities[:, 0]),
    ]
    bootstrap_interval(statistics[1], 50_000, 1)  # imports
    for statistic in statistics:
        tracemalloc.start()
        bootstrap_interval(statistic, 50_000, resamples=90)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * 2**20


def test_the_interval_of_a_mean_is_the_one_of_normal_theory() -> None:
    values = np.random.default_rng(1).normal(3, 2, 4000)
    low, high = bootstrap_interval(mean_of(values), 4000, resamples=4000)
    error = values.std() / math.sqrt(4000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_resamples_without_a_value_are_left_out() -> None:
    assert bootstrap_interval(mean_of(np.array([2.0, math.nan, math.nan])), 3) == (2, 2)
    assert all(map(math.isnan, bootstrap_interval(mean_of(np.full(3, math.nan)), 3)))
    nobody = mean_average_precision(np.zeros((3, 2), np.uint8), np.zeros((3, 2), np.float32))
    assert all(map(math.isnan, bootstrap_interval(nobody, 3)))


def rights(both: int, only_first: int, only_second: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    groups = (both, only_first, only_second, neither)
    return np.repeat([True, True, False, False], groups), np.repeat([True, False, True, False], groups)


def enumerated(only_first: int, only_second: int) -> float:
    """Of all ways to share out the images that one got right, the share of those no likelier than this one."""
    apart = only_first + only_second
    ways = [math.comb(apart, k) for k in range(apart + 1)]
    return sum(way for way in ways if way <= math.comb(apart, only_first)) / 2**apart


tables = st.tuples(*[st.integers(0, 40)] * 4).filter(any)


@few
@given(tables)
def test_mcnemar_counts_and_tests_as_enumeration_does(table: tuple[int, int, int, int]) -> None:
    found = mcnemar(*rights(*table))
    assert (found.both, found.only_first, found.only_second, found.neither) == table
    assert found.p_value == pytest.approx(enumerated(table[1], table[2]))


def test_mcnemar_equals_statsmodels() -> None:
    reference = pytest.importorskip("statsmodels.stats.contingency_tables")
    for both, only_first, only_second, neither in [(59, 6, 16, 80), (1, 1, 7, 12), (14, 5, 0, 22)]:
        expected = reference.mcnemar([[both, only_first], [only_second, neither]], exact=True).pvalue
        assert mcnemar(*rights(both, only_first, only_second, neither)).p_value == pytest.approx(expected)


# Altman, Machin, Bryant and Gardner 2000, "Statistics with confidence", p. 52; the others Fagerland, Lydersen and
# Laake 2017, "Statistical analysis of contingency tables", chapter 8.
PUBLISHED = [
    ((14, 5, 0, 22), 0.011, 0.226, 3),
    ((1, 1, 7, 12), -0.507, -0.026, 3),
    ((59, 6, 16, 80), -0.1186, -0.0046, 4),
]


@pytest.mark.parametrize(("table", "low", "high", "digits"), PUBLISHED)
def test_paired_difference_gives_the_published_intervals(
    table: tuple[int, int, int, int], low: float, high: float, digits: int
) -> None:
    found = paired_difference(*rights(*table))
    assert found.value == pytest.approx(100 * (table[1] - table[2]) / sum(table))
    assert found.low is not None
    assert found.high is not None
    assert round(found.low / 100, digits) == low
    assert round(found.high / 100, digits) == high


@few
@given(tables)
def test_paired_difference_lies_in_its_interval_and_turns_its_sign_with_the_order(
    table: tuple[int, int, int, int],
) -> None:
    first, second = rights(*table)
    found, turned = paired_difference(first, second), paired_difference(second, first)
    assert found.low is not None
    assert found.high is not None
    assert -100 - 1e-9 <= found.low <= found.value <= found.high <= 100 + 1e-9
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


@pytest.mark.parametrize("shares", [(0.88, 0.04, 0.02, 0.06), (0.3, 0.3, 0.1, 0.3), (0.97, 0.01, 0.01, 0.01)])
@pytest.mark.parametrize("images", [50, 1000])
def test_the_interval_of_a_paired_difference_covers_the_truth(shares: tuple[float, ...], images: int) -> None:
    generator = np.random.default_rng(0)
    truth = 100 * (shares[1] - shares[2])
    found = [paired_difference(*rights(*table)) for table in generator.multinomial(images, shares, 1000).tolist()]
    covered = np.mean([m.low <= truth <= m.high for m in found if m.low is not None and m.high is not None])
    assert covered > 0.93  # two standard errors are 1.4 %


@pytest.mark.parametrize("compare", [mcnemar, paired_difference])
def test_models_that_answer_different_images_are_not_compared(compare: Callable[..., object]) -> None:
    with pytest.raises(AssertionError):
        compare(np.ones(3, bool), np.ones(4, bool))
