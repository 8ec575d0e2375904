"""Batch, layer and group norm: forward, backward and running statistics as PyTorch's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_gradients import Floats, assert_close, by_torch

from residuum.reference import normalisation as norm

few = settings(max_examples=25, deadline=None)
sizes = st.lists(st.integers(2, 4), min_size=0, max_size=2).map(tuple)


def some(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).normal(2, 3, size=shape)


@few
@given(images=st.integers(3, 5), channels=st.integers(1, 4), size=sizes)
def test_batch_norm_in_training_equals_torch(images: int, channels: int, size: tuple[int, ...]) -> None:
    arrays = some(images, channels, *size), some(channels), some(channels, seed=1)
    dy = some(*arrays[0].shape, seed=2)
    expected, gradients = by_torch(lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True), dy, arrays)
    assert_close(norm.batch_norm_training(*arrays), expected)
    for got, gradient in zip(norm.batch_norm_training_backward(dy, *arrays), gradients, strict=True):
        assert_close(got, gradient)


def test_running_statistics_and_inference_equal_a_batch_norm_module_over_several_batches() -> None:
    module = torch.nn.BatchNorm2d(3, momentum=0.3, dtype=torch.float64)
    gamma, beta, mean, variance = some(3), some(3, seed=1), np.zeros(3), np.ones(3)
    module.load_state_dict(module.state_dict() | {"weight": torch.from_numpy(gamma), "bias": torch.from_numpy(beta)})
    for seed in range(4):
        x = some(2, 3, 4, 2, seed=seed)
        module(torch.from_numpy(x))
        mean, variance = norm.running_statistics(x, mean, variance, momentum=0.3)
    assert_close(mean, module.running_mean)
    assert_close(variance, module.running_var)

    dy = some(2, 3, 4, 2, seed=9)
    expected, (gradient,) = by_torch(module.eval(), dy, (x,))
    assert_close(norm.batch_norm_inference(x, gamma, beta, mean, variance), expected)
    got = norm.batch_norm_inference_backward(dy, x, gamma, beta, mean, variance)
    for ours, theirs in zip(got, (gradient, module.weight.grad, module.bias.grad), strict=True):
        assert_close(ours, theirs)


@few
@given(images=st.integers(1, 3), features=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
def test_layer_norm_equals_torch(images: int, features: tuple[int, ...]) -> None:
    arrays = some(images, 2, *features), some(*features), some(*features, seed=1)
    dy = some(*arrays[0].shape, seed=2)
    expected, gradients = by_torch(lambda x, g, b: F.layer_norm(x, features, g, b), dy, arrays)
    assert_close(norm.layer_norm(*arrays), expected)
    for got, gradient in zip(norm.layer_norm_backward(dy, *arrays), gradients, strict=True):
        assert_close(got, gradient)


@few
@given(images=st.integers(1, 3), groups=st.integers(1, 3), width=st.integers(1, 3), size=st.integers(2, 4))
def test_group_norm_equals_torch(images: int, groups: int, width: int, size: int) -> None:
    channels = groups * width
    arrays = some(images, channels, size, size), some(channels), some(channels, seed=1)
    dy = some(*arrays[0].shape, seed=2)
    expected, gradients = by_torch(lambda x, g, b: F.group_norm(x, groups, g, b), dy, arrays)
    assert_close(norm.group_norm(*arrays, groups), expected)
    for got, gradient in zip(norm.group_norm_backward(dy, *arrays, groups), gradients, strict=True):
        assert_close(got, gradient)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_batch_norm_does_not_see_the_scale_of_its_input(factor: float) -> None:
    x, one, zero = some(8, 3, 4, 4), np.ones(3), np.zeros(3)
    expected = norm.batch_norm_training(x, one, zero, eps=0.0)
    assert_close(norm.batch_norm_training(factor * x + 7, one, zero, eps=0.0), expected)
    dx = norm.batch_norm_training_backward(expected**2, factor * x, one, zero, eps=0.0)[0]
    assert_close(factor * dx, norm.batch_norm_training_backward(expected**2, x, one, zero, eps=0.0)[0])


def test_group_norm_of_one_group_is_layer_norm_and_of_every_channel_instance_norm() -> None:
    x, one, zero = some(2, 4, 3, 3), np.ones(4), np.zeros(4)
    whole = np.ones((4, 3, 3))
    assert_close(norm.group_norm(x, one, zero, 1), norm.layer_norm(x, whole, 0 * whole))
    assert_close(norm.group_norm(x, one, zero, 4), F.instance_norm(torch.from_numpy(x)).numpy())
