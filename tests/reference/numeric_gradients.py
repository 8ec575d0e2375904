"""Gradients by central differences, and by PyTorch's autograd."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def numeric_gradient(function: Callable[[Floats], float], x: Floats, step: float = 1e-5) -> Floats:
    """The gradient of a function of one array, element by element."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient


def numeric_gradients(layer: Callable[..., Floats], dy: Floats, arrays: tuple[Floats, ...]) -> list[Floats]:
    """The gradients of (dy x layer(arrays)).sum() by each of the arrays."""

    def of(number: int) -> Floats:
        def scalar(x: Floats) -> float:
            return float((dy * layer(*arrays[:number], x, *arrays[number + 1 :])).sum())

        return numeric_gradient(scalar, arrays[number])

    return [of(number) for number in range(len(arrays))]


def by_torch(layer: Callable[..., torch.Tensor], dy: Floats, arrays: tuple[Floats, ...]) -> tuple[Floats, list[Any]]:
    """(y, gradients by each of the arrays) of a layer written in torch, in float64."""
    tensors = [torch.from_numpy(np.array(array)).requires_grad_() for array in arrays]
    y = layer(*tensors)
    y.backward(torch.from_numpy(np.array(dy)))
    return y.detach().numpy(), [None if tensor.grad is None else tensor.grad.numpy() for tensor in tensors]


def assert_close(got: Any, expected: Any, atol: float = 1e-10) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=atol)
