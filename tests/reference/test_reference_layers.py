"""Linear, activations, convolution, pooling: forward and backward as PyTorch's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_gradients import Floats, assert_close, by_torch

from residuum.reference import activations, pooling
from residuum.reference.convolution import conv2d, conv2d_backward
from residuum.reference.linear import linear, linear_backward
from residuum.reference.windows import output_size

few = settings(max_examples=40, deadline=None)


def some(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def test_convolution_by_hand() -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    kernel = np.array([[[[1.0, 0.0], [0.0, -1.0]]]])
    assert_close(conv2d(x, kernel), np.full((1, 1, 2, 2), -4.0))
    assert_close(conv2d(x, kernel, np.array([10.0]), stride=2, padding=1), [[[[10.0, 8.0], [4.0, 6.0]]]])


@few
@given(
    images=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    has_bias=st.booleans(),
)
def test_convolution_equals_torch(
    images: int,
    groups: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    has_bias: bool,
) -> None:
    x, weight = some(images, groups * channels[0], *size), some(groups * channels[1], channels[0], *kernel)
    arrays = (x, weight, some(len(weight))) if has_bias else (x, weight)
    shape = {"stride": stride, "padding": padding, "groups": groups}
    y = conv2d(*arrays, **shape)
    assert y.shape[2:] == tuple(output_size(s, k, stride, padding) for s, k in zip(size, kernel, strict=True))
    dy = some(*y.shape)
    expected, gradients = by_torch(lambda *tensors: F.conv2d(*tensors, **shape), dy, arrays)
    assert_close(y, expected)
    for got, gradient in zip(conv2d_backward(dy, *arrays, **shape), gradients, strict=False):
        assert_close(got, gradient)


def test_linear_equals_torch() -> None:
    arrays, dy = (some(4, 5), some(3, 5), some(3)), some(4, 3)
    expected, gradients = by_torch(F.linear, dy, arrays)
    assert_close(linear(*arrays), expected)
    for got, gradient in zip(linear_backward(dy, *arrays), gradients, strict=True):
        assert_close(got, gradient)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activation_equals_torch_also_at_0_and_far_out(name: str) -> None:
    x = np.concatenate([[0.0, -0.0, 1e4, -1e4], some(20)])
    dy = some(24)
    expected, (gradient,) = by_torch(getattr(torch, name), dy, (x,))
    assert_close(getattr(activations, name)(x), expected)
    assert_close(getattr(activations, f"{name}_backward")(dy, x), gradient)


def torch_pool(name: str) -> Callable[..., torch.Tensor]:
    return F.max_pool2d if name == "max_pool2d" else F.avg_pool2d


@few
@given(
    name=st.sampled_from(["max_pool2d", "average_pool2d"]),
    size=st.tuples(st.integers(4, 8), st.integers(4, 8)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    data=st.data(),
)
def test_pooling_equals_torch(name: str, size: tuple[int, int], kernel: int, stride: int, data: Any) -> None:
    padding = data.draw(st.integers(0, kernel // 2))
    x = np.round(some(2, 2, *size))  # many pixels are equal
    y = getattr(pooling, name)(x, kernel, stride, padding)
    dy = some(*y.shape)
    expected, (gradient,) = by_torch(lambda x: torch_pool(name)(x, kernel, stride, padding), dy, (x,))
    assert_close(y, expected)
    assert_close(getattr(pooling, f"{name}_backward")(dy, x, kernel, stride, padding), gradient)


def test_global_average_pool_equals_torch() -> None:
    x, dy = some(2, 3, 4, 5), some(2, 3)
    expected, (gradient,) = by_torch(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), dy, (x,))
    assert_close(pooling.global_average_pool(x), expected)
    assert_close(pooling.global_average_pool_backward(dy, x), gradient)
