"""Activations: a function of each element alone, so that the gradient is dy times the derivative."""

import numpy as np

from residuum.reference.arrays import Floats


def relu(x: Floats) -> Floats:
    """max(x, 0). Glorot et al. 2011, "Deep sparse rectifier neural networks", section 3."""
    return np.maximum(x, 0)


def relu_backward(dy: Floats, x: Floats) -> Floats:
    """dx = dy where x > 0. At 0 there is no derivative; 0 is taken, as by PyTorch."""
    return dy * (x > 0)


def tanh(x: Floats) -> Floats:
    """The hyperbolic tangent, in (-1, 1). LeCun et al. 1998, "Efficient BackProp", section 4.4."""
    return np.tanh(x)


def tanh_backward(dy: Floats, x: Floats) -> Floats:
    """dx = dy (1 - tanh(x)^2): at most dy, and next to nothing where |x| is large."""
    return dy * (1 - np.tanh(x) ** 2)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), in (0, 1); written as a tanh, because exp(-x) overflows."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def sigmoid_backward(dy: Floats, x: Floats) -> Floats:
    """dx = dy s (1 - s) with s = sigmoid(x): at most dy / 4, which is why deep sigmoid networks lose their gradient."""
    s = sigmoid(x)
    return dy * s * (1 - s)
