"""Every gradient that the reference defines, against central differences."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from numeric_gradients import Floats, numeric_gradient, numeric_gradients

import residuum.reference
from residuum.reference import activations, convolution, linear, losses, normalisation, pooling, problems, unit

RNG = np.random.default_rng(0)
MODULES = [
    importlib.import_module(f"residuum.reference.{module.name}")
    for module in pkgutil.iter_modules(residuum.reference.__path__)
]


def some(*shape: int) -> Floats:
    return RNG.normal(size=shape)


class Layer(NamedTuple):
    forward: Callable[..., Floats]
    backward: Callable[..., Any]
    arrays: tuple[Floats, ...]
    settings: Mapping[str, Any] = MappingProxyType({})


NORMED = (some(3, 4, 2, 3), some(4), some(4))
UNIT = (some(4, 1, 3, 3), some(4), some(4), some(4, 4, 3, 3), some(4), some(4))


def of_branch(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with the branch's parameters one by one."""

    def forward(x: Floats, *parameters: Floats, stride: int) -> Floats:
        return function(x, unit.Branch(*parameters), stride)

    return forward


def back_through(function: Callable[..., Any]) -> Callable[..., Any]:
    def backward(dy: Floats, x: Floats, *parameters: Floats, stride: int) -> tuple[Floats, ...]:
        dx, dparameters = function(dy, x, unit.Branch(*parameters), stride)
        return dx, *dparameters

    return backward


LAYERS = [
    Layer(linear.linear, linear.linear_backward, (some(3, 5), some(2, 5), some(2))),
    Layer(linear.linear, linear.linear_backward, (some(3, 5), some(2, 5))),
    Layer(activations.relu, activations.relu_backward, (some(4, 5),)),
    Layer(activations.tanh, activations.tanh_backward, (some(4, 5),)),
    Layer(activations.sigmoid, activations.sigmoid_backward, (some(4, 5),)),
    Layer(convolution.conv2d, convolution.conv2d_backward, (some(2, 3, 5, 4), some(4, 3, 3, 2), some(4))),
    Layer(
        convolution.conv2d,
        convolution.conv2d_backward,
        (some(2, 4, 5, 6), some(6, 2, 3, 3)),
        {"stride": 2, "padding": 1, "groups": 2},
    ),
    Layer(pooling.max_pool2d, pooling.max_pool2d_backward, (some(2, 2, 6, 5),), {"kernel": 2, "stride": 2}),
    Layer(
        pooling.max_pool2d, pooling.max_pool2d_backward, (some(2, 2, 6, 5),), {"kernel": 3, "stride": 2, "padding": 1}
    ),
    Layer(
        pooling.average_pool2d,
        pooling.average_pool2d_backward,
        (some(2, 2, 6, 5),),
        {"kernel": 3, "stride": 2, "padding": 1},
    ),
    Layer(pooling.global_average_pool, pooling.global_average_pool_backward, (some(2, 3, 4, 5),)),
    Layer(
        partial(normalisation.standardise, axes=(1,), eps=0.1),
        partial(normalisation.standardise_backward, axes=(1,), eps=0.1),
        (some(3, 5),),
    ),
    Layer(normalisation.batch_norm_training, normalisation.batch_norm_training_backward, NORMED),
    Layer(
        normalisation.batch_norm_training, normalisation.batch_norm_training_backward, (some(5, 3), some(3), some(3))
    ),
    Layer(
        normalisation.batch_norm_inference,
        normalisation.batch_norm_inference_backward,
        NORMED,
        {"mean": some(4), "variance": 1 + some(4) ** 2},
    ),
    Layer(normalisation.layer_norm, normalisation.layer_norm_backward, (some(3, 2, 5), some(5), some(5))),
    Layer(normalisation.layer_norm, normalisation.layer_norm_backward, (some(2, 3, 2), some(3, 2), some(3, 2))),
    Layer(normalisation.group_norm, normalisation.group_norm_backward, NORMED, {"groups": 2}),
    Layer(of_branch(unit.branch), back_through(unit.branch_backward), (some(3, 1, 4, 4), *UNIT), {"stride": 2}),
    Layer(
        of_branch(unit.residual_unit),
        back_through(unit.residual_unit_backward),
        (some(3, 1, 4, 4), *UNIT),
        {"stride": 2},
    ),
    Layer(of_branch(unit.plain_unit), back_through(unit.plain_unit_backward), (some(3, 1, 4, 4), *UNIT), {"stride": 1}),
    Layer(partial(unit.option_a, channels=5), unit.option_a_backward, (some(2, 3, 5, 4),), {"stride": 2}),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: str(getattr(layer.backward, "__name__", "")))
def test_backward_is_the_numeric_gradient(layer: Layer) -> None:
    y = layer.forward(*layer.arrays, **layer.settings)
    dy = np.random.default_rng(1).normal(size=y.shape)
    got = layer.backward(dy, *layer.arrays, **layer.settings)
    got = got if isinstance(got, tuple) else (got,)
    expected = numeric_gradients(partial(layer.forward, **layer.settings), dy, layer.arrays)
    assert [gradient for gradient in got[len(expected) :] if gradient is not None] == []
    for gradient, numeric in zip(got, expected, strict=False):
        assert gradient.shape == numeric.shape
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


PROBABILITIES = losses.smooth_labels(losses.one_hot(np.array([0, 3, 1, 1, 2]), 4), 0.2)
LOSSES = [
    (losses.cross_entropy, losses.cross_entropy_gradient, PROBABILITIES),
    (losses.logistic_loss, losses.logistic_loss_gradient, PROBABILITIES),
    (losses.squared_error, losses.squared_error_gradient, some(5, 4)),
    (losses.absolute_error, losses.absolute_error_gradient, some(5, 4)),
    (losses.smooth_l1, losses.smooth_l1_gradient, some(5, 4)),
    (partial(losses.smooth_l1, beta=0.3), partial(losses.smooth_l1_gradient, beta=0.3), some(5, 4)),
]


@pytest.mark.parametrize(("loss", "gradient", "targets"), LOSSES)
def test_gradient_of_a_loss_is_the_numeric_one(loss: Any, gradient: Any, targets: Floats) -> None:
    outputs = 2 * np.random.default_rng(2).normal(size=targets.shape)
    expected = numeric_gradient(lambda y: loss(y, targets), outputs)
    np.testing.assert_allclose(gradient(outputs, targets), expected, rtol=1e-6, atol=1e-9)


SPREAD = some(4, 4)
PROBLEMS = {
    "quadratic": problems.quadratic(SPREAD @ SPREAD.T + np.eye(4), some(4)),
    "rosenbrock": problems.rosenbrock(),
    "logistic": problems.logistic_regression(some(20, 4), (some(20) > 0).astype(float), 0.1),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_and_hessian_of_a_problem_are_the_numeric_ones(name: str) -> None:
    problem = PROBLEMS[name]
    x = np.random.default_rng(3).normal(size=2 if name == "rosenbrock" else 4)
    np.testing.assert_allclose(problem.gradient(x), numeric_gradient(problem.value, x), rtol=1e-6, atol=1e-7)
    rows = [numeric_gradient(lambda x, row=row: problem.gradient(x)[row], x) for row in range(len(x))]
    np.testing.assert_allclose(problem.hessian(x), rows, rtol=1e-6, atol=1e-7)


def test_no_gradient_is_left_unchecked() -> None:
    defined = {
        name
        for module in MODULES
        for name, value in vars(module).items()
        if name.endswith(("_backward", "_gradient")) and value.__module__ == module.__name__
    } - {"conjugate_gradient", "nonlinear_conjugate_gradient"}
    checks = Path(__file__).read_text(encoding="utf-8")
    assert len(defined) > 20
    assert {name for name in defined if f".{name}" not in checks} == set()
