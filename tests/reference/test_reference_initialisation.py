"""Xavier and He initialisation: their variances, what they are for, and the trunk's draws held against them."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numeric_gradients import Floats
from scipy import stats
from torch import nn

from residuum.models.catalogue import create_model
from residuum.reference import initialisation as init
from residuum.reference.activations import relu

SHAPES = [(40, 30), (24, 16, 3, 3), (32, 4, 3, 5)]


def torch_std(shape: tuple[int, ...], initialiser: Any, **settings: Any) -> float:
    torch.manual_seed(0)
    return initialiser(torch.empty(shape), **settings).std().item()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fans_are_torchs(shape: tuple[int, ...]) -> None:
    assert init.fans(shape) == nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_variances_are_those_torch_draws_with(shape: tuple[int, ...]) -> None:
    tolerance = 5 / math.sqrt(2 * math.prod(shape))
    xavier = math.sqrt(init.xavier_variance(shape))
    for initialiser in (nn.init.xavier_normal_, nn.init.xavier_uniform_):
        assert torch_std(shape, initialiser) == pytest.approx(xavier, rel=tolerance)
    for fan in ("in", "out"):
        drawn = torch_std(shape, nn.init.kaiming_normal_, mode=f"fan_{fan}", nonlinearity="relu")
        assert drawn == pytest.approx(math.sqrt(init.he_variance(shape, fan)), rel=tolerance)  # type: ignore[arg-type]


def test_draws_have_their_distribution() -> None:
    rng, shape = np.random.default_rng(0), (50, 20, 3, 3)
    a = math.sqrt(6 / (50 * 9 + 20 * 9))
    assert stats.kstest(init.xavier_uniform(rng, shape).ravel(), stats.uniform(-a, 2 * a).cdf).pvalue > 0.01
    scales = [
        (init.xavier_normal(rng, shape), init.xavier_variance(shape)),
        (init.he_normal(rng, shape), 2 / 180),
        (init.he_normal(rng, shape, "out"), 2 / 450),
    ]
    for drawn, variance in scales:
        assert stats.kstest(drawn.ravel() / math.sqrt(variance), stats.norm.cdf).pvalue > 0.01


def signal_after(layers: int, draw: Any) -> float:
    """Mean square of a signal that starts at 1, after so many layers of 200 rectified units."""
    rng = np.random.default_rng(0)
    x: Floats = rng.normal(size=(100, 200))
    for _ in range(layers):
        x = relu(x) @ draw(rng, (200, 200)).T
    return float((x**2).mean())


def test_he_keeps_a_rectified_signal_where_xavier_halves_it_at_every_layer() -> None:
    assert 0.3 < signal_after(20, init.he_normal) < 3
    assert 0.3 < signal_after(20, init.xavier_normal) * 2**20 < 3


def convolution_weights(network: nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach() for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def assert_variance_is(weight: torch.Tensor, variance: float) -> None:
    """Within five standard errors of a mean of squares."""
    assert weight.double().square().mean().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / weight.numel()))


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110", "resnext29_8x64d"])
def test_a_trunks_convolutions_are_drawn_with_the_references_variance(name: str) -> None:
    torch.manual_seed(0)
    standardised = []
    for weight in convolution_weights(create_model(name)):
        variance = init.he_variance(tuple(weight.shape), "out")
        assert_variance_is(weight, variance)
        standardised.append(weight.numpy().ravel()[:5000] / math.sqrt(variance))
    assert stats.kstest(np.concatenate(standardised), stats.norm.cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("name", "variance"), [("he", partial(init.he_variance, fan="out")), ("xavier", init.xavier_variance)]
)
def test_the_initialisations_to_choose_from_have_the_references_variance(name: str, variance: Any) -> None:
    torch.manual_seed(0)
    for weight in convolution_weights(create_model("resnet20", initialisation=name)):
        assert_variance_is(weight, variance(tuple(weight.shape)))
