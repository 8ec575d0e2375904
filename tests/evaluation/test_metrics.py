"""Every metric equals scikit-learn's, sums over batches are sums over images, and nothing doubtful counts as
right.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from residuum.evaluation.metrics import (
    Counts,
    count,
    multi_label_metrics,
    no_counts,
    per_class_of_confusion,
    ranks,
    wilson_interval,
)

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def random_batch(seed: int, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # A permutation a row: no two logits are equal, where scikit-learn's order of equals is another.
    logits = torch.stack([torch.randperm(classes, generator=generator) for _ in range(images)]).float()
    return logits / 3, torch.randint(0, classes, (images,), generator=generator)


@few
@given(seeds, st.integers(1, 30), st.integers(2, 12))
def test_accuracies_loss_and_confusion_equal_scikit_learn(seed: int, images: int, classes: int) -> None:
    logits, labels = random_batch(seed, images, classes)
    counts = count(logits, labels)
    names = list(range(classes))
    probabilities = logits.double().softmax(1)
    assert counts.top1 == reference.accuracy_score(labels, logits.argmax(1), normalize=False)
    if classes > 5:
        expected = reference.top_k_accuracy_score(labels, logits, k=5, labels=names, normalize=False)
        assert counts.top5 == expected
    else:
        assert counts.top5 == images
    assert counts.loss / images == pytest.approx(reference.log_loss(labels, probabilities, labels=names), rel=1e-5)
    expected = reference.confusion_matrix(labels, logits.argmax(1), labels=names)
    assert np.array_equal(counts.confusion[:-1, :-1].numpy(), expected)
    assert counts.confusion.sum() == images


@few
@given(seeds, st.integers(1, 30), st.integers(2, 12))
def test_per_class_scores_equal_scikit_learn(seed: int, images: int, classes: int) -> None:
    logits, labels = random_batch(seed, images, classes)
    found = per_class_of_confusion(count(logits, labels).confusion.numpy())
    expected = reference.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=list(range(classes)), zero_division=np.nan
    )
    assert found.precision == pytest.approx(expected[0], nan_ok=True)
    assert found.recall == pytest.approx(expected[1], nan_ok=True)
    assert found.f1 == pytest.approx(expected[2], nan_ok=True)
    assert np.array_equal(found.images, expected[3])


@few
@given(seeds, st.integers(2, 30), st.integers(1, 29))
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(seed: int, images: int, cut: int) -> None:
    logits, labels = random_batch(seed, images, 7)
    parts = count(logits[:cut], labels[:cut]) + count(logits[cut:], labels[cut:])
    assert_equal(parts + no_counts(7, logits.device), count(logits, labels))


def assert_equal(left: Counts, right: Counts) -> None:
    assert left.loss.item() == pytest.approx(right.loss.item())
    for name in ("images", "top1", "top5", "confusion"):
        assert torch.equal(getattr(left, name), getattr(right, name))


def test_among_equal_logits_the_lower_index_ranks_first() -> None:
    logits = torch.zeros(8, 8)
    assert ranks(logits, torch.arange(8)).tolist() == list(range(8))
    counts = count(logits, torch.arange(8))
    assert (counts.top1, counts.top5) == (1, 5)
    assert counts.confusion[:, 0].sum() == 8


def test_an_image_of_an_unknown_class_is_an_error_without_a_loss() -> None:
    counts = count(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, -1]))
    assert (counts.images, counts.top1, counts.top5) == (2, 1, 1)
    assert counts.loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert counts.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert per_class_of_confusion(counts.confusion.numpy()).precision[0] == 0.5


@pytest.mark.parametrize("place", [0, 1, slice(None)])
def test_a_logit_that_is_not_a_number_makes_no_image_right(place: int | slice) -> None:
    logits = torch.tensor([[3.0, 2.0]])
    logits[0, place] = math.nan
    counts = count(logits, torch.tensor([0]))
    assert counts.top1 == 0
    assert counts.confusion[0].tolist() == [0, 0, 1]


def test_half_precision_logits_give_a_loss_in_single_precision() -> None:
    logits, labels = random_batch(0, 20, 5)
    half = logits.to(torch.bfloat16)
    assert count(half, labels).loss == count(half.float(), labels).loss


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
