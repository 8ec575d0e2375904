"""Normalisation: batch, layer and group. They differ in nothing but the elements that share a mean and a variance.

    batch norm   one channel, over all images and pixels                           Ioffe and Szegedy 2015
    layer norm   one image, over all its features                                  Ba et al. 2016
    group norm   one image, over a group of its channels and their pixels          Wu and He 2018

All standardise, x_hat = (x - mean) / sqrt(variance + eps), and then give the scale back: y = gamma x_hat + beta.
The variance is the biased one, divided by the count.
"""

import numpy as np

from residuum.reference.arrays import Floats

Axes = tuple[int, ...]
Gradients = tuple[Floats, Floats, Floats]


def standardise(x: Floats, axes: Axes, eps: float) -> Floats:
    """x with mean 0 and variance (almost) 1 over `axes`. Ioffe and Szegedy 2015, algorithm 1."""
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def standardise_backward(dx_hat: Floats, x: Floats, axes: Axes, eps: float) -> Floats:
    """dx of `standardise`. Ioffe and Szegedy 2015, section 3, their three equations for x put together.

    Mean and variance depend on x too: adding a constant to all x, or multiplying all by one, changes no x_hat. So of
    the gradient, the part along the constant 1 and the part along x_hat are taken out.
    """
    x_hat = standardise(x, axes, eps)
    along_one = dx_hat.mean(axes, keepdims=True)
    along_x_hat = x_hat * (dx_hat * x_hat).mean(axes, keepdims=True)
    return (dx_hat - along_one - along_x_hat) / np.sqrt(x.var(axes, keepdims=True) + eps)


def batch_norm_training(x: Floats, gamma: Floats, beta: Floats, eps: float = 1e-5) -> Floats:
    """Batch norm by the statistics of the batch itself: x (N, C, ...), gamma and beta (C,).

    Ioffe and Szegedy 2015, algorithm 1; over images and pixels for convolutions: section 3.2.
    """
    return _along_channels(gamma, x) * standardise(x, _all_but_channels(x), eps) + _along_channels(beta, x)


def batch_norm_training_backward(dy: Floats, x: Floats, gamma: Floats, beta: Floats, eps: float = 1e-5) -> Gradients:
    """dy (N, C, ...) to (dx, dgamma, dbeta). Ioffe and Szegedy 2015, section 3."""
    axes = _all_but_channels(x)
    dx = standardise_backward(dy * _along_channels(gamma, x), x, axes, eps)
    return dx, (dy * standardise(x, axes, eps)).sum(axes), dy.sum(axes)


def running_statistics(x: Floats, mean: Floats, variance: Floats, momentum: float = 0.1) -> tuple[Floats, Floats]:
    """The running mean and variance (C,) after the batch x (N, C, ...): what inference will use.

    new = (1 - momentum) old + momentum batch's: PyTorch's momentum is the weight of what is new. The batch's
    variance enters unbiased, times m / (m - 1) with m values a channel (Ioffe and Szegedy 2015, algorithm 2, step
    10), although the batch itself is normalised by the biased one.
    """
    axes = _all_but_channels(x)
    new_mean = (1 - momentum) * mean + momentum * x.mean(axes)
    new_variance = (1 - momentum) * variance + momentum * x.var(axes, ddof=1)
    return new_mean, new_variance


def batch_norm_inference(
    x: Floats, gamma: Floats, beta: Floats, mean: Floats, variance: Floats, eps: float = 1e-5
) -> Floats:
    """Batch norm by running statistics (C,): for each channel a fixed scale and shift.

    Ioffe and Szegedy 2015, algorithm 2, step 11.
    """
    scale = gamma / np.sqrt(variance + eps)
    return _along_channels(scale, x) * x + _along_channels(beta - scale * mean, x)


def batch_norm_inference_backward(
    dy: Floats, x: Floats, gamma: Floats, beta: Floats, mean: Floats, variance: Floats, eps: float = 1e-5
) -> Gradients:
    """dy (N, C, ...) to (dx, dgamma, dbeta): mean and variance are constants now, so dx is dy times the scale."""
    axes = _all_but_channels(x)
    std = np.sqrt(variance + eps)
    x_hat = (x - _along_channels(mean, x)) / _along_channels(std, x)
    return dy * _along_channels(gamma / std, x), (dy * x_hat).sum(axes), dy.sum(axes)


def layer_norm(x: Floats, gamma: Floats, beta: Floats, eps: float = 1e-5) -> Floats:
    """x (N, ..., features), normalised over the features: the last axes, as many as gamma and beta have.

    Ba et al. 2016, "Layer Normalization", section 3, equation 3.
    """
    return gamma * standardise(x, _last_axes(gamma), eps) + beta


def layer_norm_backward(dy: Floats, x: Floats, gamma: Floats, beta: Floats, eps: float = 1e-5) -> Gradients:
    """dy (N, ..., features) to (dx, dgamma, dbeta)."""
    axes = _last_axes(gamma)
    others = tuple(range(x.ndim - gamma.ndim))
    dx = standardise_backward(dy * gamma, x, axes, eps)
    return dx, (dy * standardise(x, axes, eps)).sum(others), dy.sum(others)


def group_norm(x: Floats, gamma: Floats, beta: Floats, groups: int, eps: float = 1e-5) -> Floats:
    """x (N, C, ...) in `groups` equal shares of the channels, gamma and beta (C,). Wu and He 2018, section 3.1.

    One group is layer norm with one gamma a channel; C groups are instance norm.
    """
    x_hat = standardise(_in_groups(x, groups), (2,), eps).reshape(x.shape)
    return _along_channels(gamma, x) * x_hat + _along_channels(beta, x)


def group_norm_backward(
    dy: Floats, x: Floats, gamma: Floats, beta: Floats, groups: int, eps: float = 1e-5
) -> Gradients:
    """dy (N, C, ...) to (dx, dgamma, dbeta)."""
    grouped, axes = _in_groups(x, groups), _all_but_channels(x)
    dx = standardise_backward(_in_groups(dy * _along_channels(gamma, x), groups), grouped, (2,), eps)
    x_hat = standardise(grouped, (2,), eps).reshape(x.shape)
    return dx.reshape(x.shape), (dy * x_hat).sum(axes), dy.sum(axes)


def _all_but_channels(x: Floats) -> Axes:
    return (0, *range(2, x.ndim))


def _last_axes(gamma: Floats) -> Axes:
    return tuple(range(-gamma.ndim, 0))


def _along_channels(values: Floats, x: Floats) -> Floats:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _in_groups(x: Floats, groups: int) -> Floats:
    return x.reshape(len(x), groups, -1)
