"""Losses against torch.nn.functional and NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from residuum.training.losses import balanced_weights, build_loss
from residuum.training.run import LossChoice

N, K = 12, 4
COUNTS = (10, 20, 40, 10)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(N, K, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(K, (N,), generator=torch.Generator().manual_seed(1))


def soft(labels: Tensor) -> Tensor:
    one_hot = F.one_hot(labels, K).float()
    return 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch_and_numpy(logits: Tensor, labels: Tensor, smoothing: float) -> None:
    loss = build_loss(LossChoice("cross-entropy", label_smoothing=smoothing), K, COUNTS)
    got = loss(logits, labels)
    torch.testing.assert_close(got, F.cross_entropy(logits, labels, label_smoothing=smoothing))
    z = logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    target = np.eye(K)[labels.numpy()] * (1 - smoothing) + smoothing / K
    assert got.item() == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("balance", ["none", "balanced"])
def test_one_hot_labels_give_the_loss_of_class_numbers(
    logits: Tensor, labels: Tensor, smoothing: float, balance: Any
) -> None:
    loss = build_loss(LossChoice("cross-entropy", smoothing, balance), K, COUNTS)
    torch.testing.assert_close(loss(logits, labels), loss(logits, F.one_hot(labels, K).float()))


def test_soft_labels_mix_the_losses_of_their_classes(logits: Tensor, labels: Tensor) -> None:
    loss = build_loss(LossChoice("cross-entropy"), K, COUNTS)
    mixed = 0.7 * loss(logits, labels) + 0.3 * loss(logits, labels.roll(1))
    torch.testing.assert_close(loss(logits, soft(labels)), mixed)


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(K), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(K), y=labels)
    np.testing.assert_allclose(balanced_weights(COUNTS).numpy(), expected, rtol=1e-6)


def test_a_class_without_training_images_weighs_nothing() -> None:
    assert balanced_weights((5, 0, 15)).tolist() == pytest.approx([2.0, 0.0, 2 / 3])


@pytest.mark.parametrize("name", ["cross-entropy", "binary-cross-entropy", "mse"])
def test_a_batch_in_two_halves_has_the_whole_batchs_balanced_loss(logits: Tensor, labels: Tensor, name: Any) -> None:
    loss = build_loss(LossChoice(name, class_weights="balanced"), K, COUNTS)
    halves = [loss(logits[part], labels[part]) for part in (slice(0, N // 2), slice(N // 2, N))]
    torch.testing.assert_close(sum(halves) / 2, loss(logits, labels))


def test_balanced_cross_entropy_weighs_each_image_by_its_class(logits: Tensor, labels: Tensor) -> None:
    loss = build_loss(LossChoice("cross-entropy", class_weights="balanced"), K, COUNTS)
    weights = balanced_weights(COUNTS)[labels]
    expected = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
    torch.testing.assert_close(loss(logits, labels), expected)


def test_binary_cross_entropy_equals_numpy(logits: Tensor) -> None:
    targets = (torch.arange(N * K).reshape(N, K) % 3 == 0).to(torch.uint8)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    y = targets.numpy()
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    plain = build_loss(LossChoice("binary-cross-entropy"), K, COUNTS)(logits, targets)
    assert plain.item() == pytest.approx(expected.mean(), rel=1e-5)
    balanced = build_loss(LossChoice("binary-cross-entropy", class_weights="balanced"), K, COUNTS)
    weighted = expected * balanced_weights(COUNTS).numpy()
    assert balanced(logits, targets).item() == pytest.approx(weighted.mean(), rel=1e-5)


def test_mse_is_against_one_hot_labels(logits: Tensor, labels: Tensor) -> None:
    loss = build_loss(LossChoice("mse"), K, COUNTS)
    expected = ((logits.numpy() - np.eye(K)[labels.numpy()]) ** 2).mean()
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(loss(logits, soft(labels)), F.mse_loss(logits, soft(labels)))


@pytest.mark.parametrize("name", ["cross-entropy", "binary-cross-entropy", "mse"])
def test_half_precision_logits_give_a_float32_loss(logits: Tensor, labels: Tensor, name: Any) -> None:
    assert build_loss(LossChoice(name), K, COUNTS)(logits.bfloat16(), labels).dtype == torch.float32
