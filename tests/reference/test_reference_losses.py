"""The reference's losses as PyTorch's, and training's losses held against them."""

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numeric_gradients import Floats, assert_close

from residuum.reference import losses
from residuum.training.losses import build_loss
from residuum.training.run import LossChoice

N, K = 7, 4
RNG = np.random.default_rng(0)
LOGITS, LABELS = 3 * RNG.normal(size=(N, K)), RNG.integers(K, size=N)
ONE_HOT = losses.one_hot(LABELS, K)
SOFT = RNG.dirichlet(np.ones(K), size=N)
NUMBERS = 2 * RNG.normal(size=(N, K))

PAIRS = [
    (losses.cross_entropy, losses.cross_entropy_gradient, SOFT, F.cross_entropy),
    (losses.logistic_loss, losses.logistic_loss_gradient, SOFT, F.binary_cross_entropy_with_logits),
    (losses.squared_error, losses.squared_error_gradient, NUMBERS, F.mse_loss),
    (losses.absolute_error, losses.absolute_error_gradient, NUMBERS, F.l1_loss),
    (losses.smooth_l1, losses.smooth_l1_gradient, NUMBERS, F.smooth_l1_loss),
]


def value_and_gradient(loss: Any, outputs: Floats, targets: torch.Tensor, dtype: torch.dtype) -> tuple[float, Floats]:
    given = torch.from_numpy(outputs).to(dtype).requires_grad_()
    value = loss(given, targets)
    value.backward()
    return value.item(), given.grad.numpy()


@pytest.mark.parametrize(("loss", "gradient", "targets", "torchs"), PAIRS)
def test_loss_equals_torch(loss: Any, gradient: Any, targets: Floats, torchs: Any) -> None:
    value, slope = value_and_gradient(torchs, LOGITS, torch.from_numpy(targets), torch.float64)
    assert loss(LOGITS, targets) == pytest.approx(value, rel=1e-12)
    assert_close(gradient(LOGITS, targets), slope)


@pytest.mark.parametrize("beta", [0.1, 2.5])
def test_smooth_l1_equals_torch_at_any_beta(beta: float) -> None:
    errors = np.array([-3.0, -beta, -0.5 * beta, 0.0, 0.9 * beta, beta, 4.0])
    loss = F.smooth_l1_loss
    value, slope = value_and_gradient(
        lambda y, t: loss(y, t, beta=beta), errors, torch.zeros(7, dtype=torch.float64), torch.float64
    )
    assert losses.smooth_l1(errors, np.zeros(7), beta) == pytest.approx(value)
    assert_close(losses.smooth_l1_gradient(errors, np.zeros(7), beta), slope)


def test_absolute_error_has_no_gradient_at_no_error() -> None:
    assert losses.absolute_error_gradient(np.array([0.0, 2.0]), np.array([0.0, 4.0])).tolist() == [0.0, -0.5]


def test_sure_logits_neither_overflow_nor_lose_the_loss() -> None:
    sure = np.array([[1000.0, -1000.0]])
    with np.errstate(all="raise", under="ignore"):
        assert losses.cross_entropy(sure, np.array([[0.0, 1.0]])) == 2000
        assert losses.cross_entropy(sure, np.array([[1.0, 0.0]])) == 0
        assert losses.logistic_loss(sure, np.array([[0.0, 0.0]])) == 500
        assert losses.logistic_loss_gradient(sure, np.array([[0.0, 0.0]])).tolist() == [[0.5, 0.0]]


def test_logistic_loss_is_the_cross_entropy_of_two_classes() -> None:
    z, t = LOGITS[:, :1], SOFT[:, :1]
    two_logits, two_targets = np.hstack([z, 0 * z]), np.hstack([t, 1 - t])
    assert losses.logistic_loss(z, t) == pytest.approx(losses.cross_entropy(two_logits, two_targets))


REFERENCES = {
    "cross-entropy": (losses.cross_entropy, losses.cross_entropy_gradient),
    "binary-cross-entropy": (losses.logistic_loss, losses.logistic_loss_gradient),
    "mse": (losses.squared_error, losses.squared_error_gradient),
}


@pytest.mark.parametrize("labels", ["numbers", "soft"])
@pytest.mark.parametrize("name", get_args(get_type_hints(LossChoice)["name"]))
def test_every_training_loss_equals_the_reference(name: Any, labels: str) -> None:
    loss, gradient = REFERENCES[name]
    given, targets = (LABELS, ONE_HOT) if labels == "numbers" else (SOFT, SOFT)
    fast = build_loss(LossChoice(name), K, (1,) * K)
    value, slope = value_and_gradient(fast, LOGITS, torch.from_numpy(given), torch.float32)
    assert value == pytest.approx(loss(LOGITS, targets), rel=1e-5)
    np.testing.assert_allclose(slope, gradient(LOGITS, targets), rtol=1e-4, atol=1e-6)


def test_label_smoothing_of_training_equals_the_reference() -> None:
    fast = build_loss(LossChoice("cross-entropy", label_smoothing=0.1), K, (1,) * K)
    value, slope = value_and_gradient(fast, LOGITS, torch.from_numpy(LABELS), torch.float32)
    smooth = losses.smooth_labels(ONE_HOT, 0.1)
    assert value == pytest.approx(losses.cross_entropy(LOGITS, smooth), rel=1e-5)
    np.testing.assert_allclose(slope, losses.cross_entropy_gradient(LOGITS, smooth), rtol=1e-4, atol=1e-6)
