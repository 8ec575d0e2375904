"""The reference's residual unit, and the models' units held against it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_gradients import Floats, assert_close

from residuum.models.normalisation import replace_normalisation
from residuum.models.shortcuts import ShortcutBuilder, no_shortcut, option_a
from residuum.models.units import Basic
from residuum.reference import unit
from residuum.reference.activations import relu
from residuum.reference.convolution import conv2d
from residuum.reference.normalisation import batch_norm_inference, batch_norm_training, group_norm, running_statistics

UNITS = {
    "residual": (option_a, unit.residual_unit, unit.residual_unit_backward),
    "plain": (no_shortcut, unit.plain_unit, unit.plain_unit_backward),
}
NAMES = ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias")


def some(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def parameters(in_channels: int, planes: int) -> unit.Branch:
    return unit.Branch(
        some(planes, in_channels, 3, 3),
        some(planes),
        some(planes, seed=1),
        some(planes, planes, 3, 3),
        some(planes, seed=2),
        some(planes, seed=3),
    )


def fast_unit(in_channels: int, planes: int, stride: int, shortcut: ShortcutBuilder) -> Basic:
    built = Basic(in_channels, planes, stride, shortcut, 0.0).double()
    state = dict(zip(NAMES, map(torch.from_numpy, parameters(in_channels, planes)), strict=True))
    built.load_state_dict(built.state_dict() | state)
    return built


@pytest.mark.parametrize("kind", UNITS)
@settings(max_examples=15, deadline=None)
@given(
    images=st.integers(2, 4),
    in_channels=st.integers(1, 3),
    more=st.integers(0, 3),
    stride=st.integers(1, 2),
    size=st.integers(4, 7),
)
def test_basic_unit_equals_the_reference(
    kind: str, images: int, in_channels: int, more: int, stride: int, size: int
) -> None:
    shortcut, forward, backward = UNITS[kind]
    planes = in_channels + more
    built = fast_unit(in_channels, planes, stride, shortcut)
    x = torch.from_numpy(some(images, in_channels, size, size + 1)).requires_grad_()
    y = built(x)
    dy = some(*y.shape, seed=5)
    y.backward(torch.from_numpy(dy))

    given = parameters(in_channels, planes)
    x_array = x.detach().numpy()
    assert_close(y.detach(), forward(x_array, given, stride))
    dx, dparameters = backward(dy, x_array, given, stride)
    assert_close(x.grad, dx)
    for name, gradient in zip(NAMES, dparameters, strict=True):
        assert_close(built.get_parameter(name).grad, gradient, atol=1e-9)


def test_basic_unit_keeps_the_references_running_statistics_and_infers_by_them() -> None:
    built, x, p = fast_unit(2, 4, 2, option_a), some(3, 2, 6, 6), parameters(2, 4)
    built(torch.from_numpy(x))
    a = conv2d(x, p.weight1, stride=2, padding=1)
    c = conv2d(relu(batch_norm_training(a, p.gamma1, p.beta1)), p.weight2, padding=1)
    first, second = (running_statistics(values, np.zeros(4), np.ones(4)) for values in (a, c))
    for bn, (mean, variance) in ((built.bn1, first), (built.bn2, second)):
        assert_close(bn.running_mean, mean)
        assert_close(bn.running_var, variance)

    h = relu(batch_norm_inference(a, p.gamma1, p.beta1, *first))
    f = batch_norm_inference(conv2d(h, p.weight2, padding=1), p.gamma2, p.beta2, *second)
    with torch.no_grad():
        assert_close(built.eval()(torch.from_numpy(x)), relu(f + unit.option_a(x, 4, 2)))


def test_a_unit_whose_branch_is_zero_carries_x_and_its_gradient_where_the_plain_one_loses_both() -> None:
    x, dy = np.abs(some(2, 3, 5, 5)), some(2, 3, 5, 5, seed=1)
    silent = parameters(3, 3)._replace(gamma2=np.zeros(3), beta2=np.zeros(3))
    assert_close(unit.residual_unit(x, silent), x)
    assert_close(unit.residual_unit_backward(dy, x, silent)[0], dy)
    assert not unit.plain_unit(x, silent).any()
    assert not unit.plain_unit_backward(dy, x, silent)[0].any()


@pytest.mark.parametrize(("name", "groups"), [("layer", 1), ("group", 2)])
def test_unit_with_another_normalisation_equals_the_reference(name: str, groups: int) -> None:
    built, x, p = fast_unit(4, 4, 1, option_a), some(3, 4, 5, 6), parameters(4, 4)
    replace_normalisation(built, name, "unit")
    h = relu(group_norm(conv2d(x, p.weight1, padding=1), p.gamma1, p.beta1, groups))
    f = group_norm(conv2d(h, p.weight2, padding=1), p.gamma2, p.beta2, groups)
    assert_close(built(torch.from_numpy(x)).detach(), relu(f + x))
