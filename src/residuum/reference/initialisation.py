"""Where weights start: drawn around zero with the variance that keeps a signal's size from layer to layer.

A linear unit sums fan-in products, so its output's variance is fan-in x Var(w) x that of its input; going backward,
fan-out takes fan-in's place. Weights are (out, in) or, of a convolution, (out, in / groups, K_h, K_w).
"""

import math
from typing import Literal

from numpy.random import Generator

from residuum.reference.arrays import Floats

Fan = Literal["in", "out"]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan-in, fan-out): how many inputs an output sums, and how many outputs an input goes to.

    At stride 1; of a grouped convolution, fan-out counts the outputs of all the groups, as PyTorch's does.
    """
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def xavier_variance(shape: tuple[int, ...]) -> float:
    """2 / (fan-in + fan-out): between what keeps the signal and what keeps the gradient of a linear layer.

    Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 12.
    """
    return 2 / sum(fans(shape))


def he_variance(shape: tuple[int, ...], fan: Fan = "in") -> float:
    """2 / fan: twice as much, because a ReLU lets half of the signal's power through.

    He et al. 2015, "Delving deep into rectifiers", section 2.2: "in" keeps the signal's size (equation 10), "out"
    the gradient's (equation 14).
    """
    fan_in, fan_out = fans(shape)
    return 2 / (fan_in if fan == "in" else fan_out)


def xavier_normal(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Normal with Xavier's variance."""
    return rng.normal(0, math.sqrt(xavier_variance(shape)), shape)


def xavier_uniform(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Uniform in [-a, a) with Xavier's variance, which is a^2 / 3. Glorot and Bengio 2010, equation 16."""
    a = math.sqrt(3 * xavier_variance(shape))
    return rng.uniform(-a, a, shape)


def he_normal(rng: Generator, shape: tuple[int, ...], fan: Fan = "in") -> Floats:
    """Normal with He's variance."""
    return rng.normal(0, math.sqrt(he_variance(shape, fan)), shape)
