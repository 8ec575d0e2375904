"""Every metric equals scikit-learn's, sums over batches are sums over images, and nothing doubtful counts as
right.
"""

import math

import numpy as np
import pytest
import torch
from given import answers_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from residuum.evaluation.metrics import multi_label_metrics, per_class_of_confusion, ranks, wilson_interval
from residuum.evaluation.scores import evaluation_of

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def random_batch(seed: int, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # A permutation a row: no two logits are equal, where scikit-learn's order of equals is another.
    logits = torch.stack([torch.randperm(classes, generator=generator) for _ in range(images)]).float()
    return logits / 3, torch.randint(0, classes, (images,), generator=generator)


@few
@given(seeds, st.integers(1, 30), st.integers(2, 12), st.integers(1, 31))
def test_accuracies_loss_and_confusion_equal_scikit_learn(seed: int, images: int, classes: int, size: int) -> None:
    logits, labels = random_batch(seed, images, classes)
    answers = answers_of(logits, labels, size)
    found, names = evaluation_of(answers, ""), list(range(classes))
    probabilities = logits.double().softmax(1)
    assert found.top1.value == pytest.approx(100 * reference.accuracy_score(labels, logits.argmax(1)))
    expected = reference.top_k_accuracy_score(labels, logits, k=5, labels=names) if classes > 5 else 1.0
    assert found.top5.value == pytest.approx(100 * expected)
    assert found.loss.value == pytest.approx(reference.log_loss(labels, probabilities, labels=names), rel=1e-5)
    expected = reference.confusion_matrix(labels, logits.argmax(1), labels=names)
    assert np.array_equal(answers.confusion()[:-1, :-1], expected)
    assert answers.confusion().sum() == images
    assert answers.confidences == pytest.approx(probabilities.amax(1).numpy())


@few
@given(seeds, st.integers(1, 30), st.integers(2, 12))
def test_per_class_scores_equal_scikit_learn(seed: int, images: int, classes: int) -> None:
    logits, labels = random_batch(seed, images, classes)
    found = per_class_of_confusion(answers_of(logits, labels).confusion())
    expected = reference.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=list(range(classes)), zero_division=np.nan
    )
    assert found.precision == pytest.approx(expected[0], nan_ok=True)
    assert found.recall == pytest.approx(expected[1], nan_ok=True)
    assert found.f1 == pytest.approx(expected[2], nan_ok=True)
    assert np.array_equal(found.images, expected[3])


def test_among_equal_logits_the_lower_index_ranks_first() -> None:
    logits = torch.zeros(8, 8)
    assert ranks(logits, torch.arange(8)).tolist() == list(range(8))
    answers = answers_of(logits, torch.arange(8))
    assert answers.right.sum() == 1
    assert (answers.ranks < 5).sum() == 5
    assert (answers.predictions == 0).all()


def test_an_image_of_an_unknown_class_is_an_error_without_a_loss() -> None:
    answers = answers_of(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, -1]))
    found = evaluation_of(answers, "")
    assert (found.images, found.unknown, found.top1.value, found.top5.value) == (2, 1, 50, 50)
    assert found.loss.value == pytest.approx(math.log(1 + math.exp(-1)))
    assert answers.confusion().tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert per_class_of_confusion(answers.confusion()).precision[0] == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, slice(None)])
def test_a_logit_that_is_not_a_number_makes_no_image_right(place: int | slice, value: float) -> None:
    logits = torch.tensor([[3.0, 2.0]])
    logits[0, place] = value
    answers = answers_of(logits, torch.tensor([0]))
    assert not answers.right.any()
    assert (answers.predictions, answers.ranks) == (-1, -1)
    assert answers.confusion()[0].tolist() == [0, 0, 1]
    assert evaluation_of(answers, "").loss.value == math.inf


def test_half_precision_logits_give_a_loss_in_single_precision() -> None:
    logits, labels = random_batch(0, 20, 5)
    half = logits.to(torch.bfloat16)
    assert np.array_equal(answers_of(half, labels).losses, answers_of(half.float(), labels).losses)


@given(st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilson_interval_ends_where_the_share_is_z_standard_errors_away(case: tuple[int, int]) -> None:
    right, of = case
    low, high = wilson_interval(right, of)
    assert 0 <= low <= right / of <= high <= 1
    for end in (low, high):
        assert abs(right / of - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / of), abs=1e-6)


@few
@given(seeds, st.integers(2, 30), st.integers(2, 6))  # scikit-learn takes a single column for another task
@pytest.mark.filterwarnings("ignore")
def test_multi_label_scores_equal_scikit_learn(seed: int, images: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random((images, classes)) < 0.4).astype(np.uint8)
    probabilities = random.random((images, classes)).astype(np.float32)
    found, said, present = multi_label_metrics(probabilities, labels), probabilities >= 0.5, labels.any(0)
    for average, value in (("micro", found.micro_f1), ("macro", found.macro_f1)):
        expected = reference.f1_score(labels, said, average=average, zero_division=np.nan)
        assert value == pytest.approx(expected, nan_ok=True)
    if present.any():
        expected = reference.average_precision_score(labels[:, present], probabilities[:, present], average=None)
        assert found.average_precision[present] == pytest.approx(expected)
        assert found.mean_average_precision == pytest.approx(np.mean(expected))
    assert np.isnan(found.average_precision[~present]).all()
