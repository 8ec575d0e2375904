"""Calibration equals the libraries' where they measure the same, and a fitted temperature is the best there is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from torch.nn import functional as F

from residuum.errors import UserError
from residuum.evaluation.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, fit_temperature, reliability

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def random_answers(seed: int, images: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidences within bins of 1/15, away from their edges, on which definitions differ; right at random."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, 15, images) + generator.uniform(0.01, 0.99, images)
    confidences = (places / 15).astype(np.float32)
    return confidences, generator.random(images) < confidences**2


@few
@given(seeds, st.integers(1, 300))
def test_calibration_error_equals_torchmetrics(seed: int, images: int) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    confidences, right = random_answers(seed, images)
    confidences = np.maximum(confidences, np.float32(0.51))  # of two classes, the one predicted
    scores = torch.from_numpy(np.stack([confidences, 1 - confidences], axis=1))
    labels = torch.from_numpy(np.where(right, 0, 1))
    expected = classification.multiclass_calibration_error(scores, labels, num_classes=2, n_bins=15, norm="l1")
    assert reliability(confidences, right).ece.value == pytest.approx(100 * float(expected), abs=1e-3)


@few
@given(seeds, st.integers(1, 300), st.integers(1, 20))
def test_the_curve_equals_scikit_learn(seed: int, images: int, bins: int) -> None:
    confidences, right = random_answers(seed, images)
    accuracy, confidence = calibration_curve(right, confidences.astype(np.float64), n_bins=bins, strategy="uniform")
    curve, diagonal = reliability(confidences, right, bins).series()
    assert curve.x == pytest.approx(100 * confidence)
    assert curve.y == pytest.approx(100 * accuracy)
    assert diagonal.x == diagonal.y == (0, 100)


def test_a_bin_holds_its_upper_edge_and_the_gaps_are_weighted_by_images() -> None:
    found = reliability(np.array([0.0, 0.5, 0.75, 1.0]), np.array([False, True, True, False]), bins=2)
    assert found.edges == (0, 0.5, 1)
    assert found.counts == (2, 2)
    assert found.confidence == (0.25, 0.875)
    assert found.accuracy == (0.5, 0.5)
    assert found.ece.value == pytest.approx(100 * (0.25 * 2 + 0.375 * 2) / 4)
    assert found.table().rows == (("0 to 50", 2, 25, 50), ("50 to 100", 2, 87.5, 50))


def test_an_empty_bin_has_no_means_and_no_point_on_the_curve() -> None:
    found = reliability(np.array([0.9, 0.8]), np.array([True, False]), bins=4)
    assert found.counts == (0, 0, 0, 2)
    assert math.isnan(found.confidence[0])
    assert found.table().rows[0] == ("0 to 25", 0, None, None)
    assert [len(series.x) for series in found.series()] == [1, 2]


def test_images_without_an_answer_are_left_out() -> None:
    confidences, right = random_answers(0, 100)
    some = np.arange(100) % 3 > 0
    partly = np.where(some, confidences, np.nan)
    assert reliability(partly, right & some).counts == reliability(confidences[some], right[some]).counts
    assert reliability(partly, right & some).ece == reliability(confidences[some], right[some]).ece


def test_without_any_answer_there_is_no_error_to_speak_of() -> None:
    found = reliability(np.full(3, np.nan, np.float32), np.zeros(3, bool))
    assert math.isnan(found.ece.value)
    assert found.ece.low is None
    assert sum(found.counts) == 0
    assert found.series()[0].x == ()


def test_the_interval_of_the_error_covers_the_truth_where_resamples_are_biased() -> None:
    """Every confidence is 2 % too high, hardly more than the error that chance makes of 1,000 images in ten bins."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        confidences = (generator.integers(5, 15, 1000) + 0.5) / 15
        ece = reliability(confidences, generator.random(1000) < confidences - 0.02).ece
        assert ece.low is not None
        assert ece.high is not None
        assert 0 <= ece.low <= ece.value <= ece.high
        covered += ece.low <= 2 <= ece.high
    assert covered >= 85


def planted(seed: int, images: int, classes: int, temperature: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits whose softmax is the truth once they are divided by the temperature."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 2, (images, classes))
    labels = (truth + generator.gumbel(size=truth.shape)).argmax(1)
    return (temperature * truth).astype(np.float32), labels


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    return float(F.cross_entropy(torch.from_numpy(logits).double() / temperature, torch.from_numpy(labels)))


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.5, 12.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    logits, labels = planted(0, 20_000, 5, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


@few
@given(seeds, st.integers(2, 200), st.integers(2, 6))
def test_no_temperature_of_a_fine_grid_is_better(seed: int, images: int, classes: int) -> None:
    logits, labels = planted(seed, images, classes, 3.0)
    try:
        found = fit_temperature(logits, labels)
    except UserError:  # the model is right, or no better than chance, on these few
        assume(False)
    assert LOWEST_TEMPERATURE <= found <= HIGHEST_TEMPERATURE
    assert np.array_equal((logits / np.float32(found)).argmax(1), logits.argmax(1))
    grid = np.geomspace(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE, 200)
    least = min(cross_entropy(logits, labels, temperature) for temperature in grid)
    assert cross_entropy(logits, labels, found) <= least * (1 + 1e-5) + 1e-9


def test_the_temperature_is_the_one_that_lbfgs_finds() -> None:
    logits, labels = planted(1, 3000, 10, 1.8)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([inverse], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(torch.from_numpy(logits).double() * inverse, torch.from_numpy(labels))
        value.backward()
        return value

    optimiser.step(loss)
    assert fit_temperature(logits, labels) == pytest.approx(1 / inverse.item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_planted_temperature_is_found_with_several_labels_an_image(temperature: float) -> None:
    generator = np.random.default_rng(3)
    truth = generator.normal(-1, 2, (9000, 4))  # more than are summed at a time
    labels = (generator.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(np.uint8)
    logits = (temperature * truth).astype(np.float32)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    scores, target = torch.from_numpy(logits).double(), torch.from_numpy(labels).double()
    losses = [
        float(F.binary_cross_entropy_with_logits(scores / t, target)) for t in (found, 0.99 * found, 1.01 * found)
    ]
    assert losses[0] == min(losses)


def test_unknown_classes_and_scores_that_are_not_numbers_do_not_count() -> None:
    logits, labels = planted(4, 500, 3, 2.0)
    spoilt, others = logits.copy(), labels.copy()
    spoilt[:100, 1], spoilt[100:200, 0], others[200:300] = np.nan, np.inf, -1
    assert fit_temperature(spoilt, others) == fit_temperature(logits[300:], labels[300:])


def test_a_model_that_is_always_right_or_always_wrong_has_no_temperature() -> None:
    logits = np.array([[0.5, 0.0], [0.0, 0.5]], np.float32)
    for labels in ([0, 1], [1, 0]):
        with pytest.raises(UserError, match="determine no temperature"):
            fit_temperature(logits, np.array(labels))
        with pytest.raises(UserError, match="determine no temperature"):
            fit_temperature(logits, np.eye(2, dtype=np.uint8)[labels])


def test_nothing_to_fit_on_is_refused() -> None:
    with pytest.raises(UserError, match="no image has finite scores"):
        fit_temperature(np.full((2, 3), np.nan, np.float32), np.array([0, 1]))
    with pytest.raises(UserError, match="no image has finite scores"):
        fit_temperature(np.zeros((2, 3), np.float32), np.array([-1, -1]))
