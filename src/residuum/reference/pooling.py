"""Pooling: what a window of pixels becomes, channel by channel. Windows are square."""

import numpy as np

from residuum.reference.arrays import Floats
from residuum.reference.windows import crop, output_size, pad, seen_at


def max_pool2d(x: Floats, kernel: int, stride: int, padding: int = 0) -> Floats:
    """The largest pixel of each window: (N, C, H, W) to (N, C, H', W').

    What is padded is never the largest. Krizhevsky et al. 2012, section 3.4.
    """
    padded = pad(x, padding, -np.inf)
    y = np.full(_output_shape(x, kernel, stride, padding), -np.inf)
    for i, j in np.ndindex(kernel, kernel):
        y = np.maximum(y, seen_at(padded, i, j, (kernel, kernel), stride))
    return y


def max_pool2d_backward(dy: Floats, x: Floats, kernel: int, stride: int, padding: int = 0) -> Floats:
    """dy goes to each window's largest pixel, and to nothing else: (N, C, H', W') to (N, C, H, W).

    Of several equal ones the first, row by row, gets it all, as in PyTorch.
    """
    padded, y = pad(x, padding, -np.inf), max_pool2d(x, kernel, stride, padding)
    dpadded, is_given = np.zeros_like(padded), np.zeros(y.shape, dtype=bool)
    for i, j in np.ndindex(kernel, kernel):
        pixels, dpixels = (seen_at(image, i, j, (kernel, kernel), stride) for image in (padded, dpadded))
        is_chosen = (pixels == y) & ~is_given
        dpixels += dy * is_chosen
        is_given |= is_chosen
    return crop(dpadded, padding)


def average_pool2d(x: Floats, kernel: int, stride: int, padding: int = 0) -> Floats:
    """The mean of each window: (N, C, H, W) to (N, C, H', W').

    Padding counts as zeros, as is PyTorch's default. LeCun et al. 1998, "Gradient-based learning applied to
    document recognition", section II.B.
    """
    padded = pad(x, padding)
    y = np.zeros(_output_shape(x, kernel, stride, padding))
    for i, j in np.ndindex(kernel, kernel):
        y += seen_at(padded, i, j, (kernel, kernel), stride)
    return y / kernel**2


def average_pool2d_backward(dy: Floats, x: Floats, kernel: int, stride: int, padding: int = 0) -> Floats:
    """dy is shared out evenly among each window's pixels: (N, C, H', W') to (N, C, H, W)."""
    dpadded = np.zeros_like(pad(x, padding))
    for i, j in np.ndindex(kernel, kernel):
        dpixels = seen_at(dpadded, i, j, (kernel, kernel), stride)
        dpixels += dy / kernel**2
    return crop(dpadded, padding)


def global_average_pool(x: Floats) -> Floats:
    """The mean of each feature map: (N, C, H, W) to (N, C). Lin et al. 2013, "Network in Network", section 3.2."""
    return x.mean(axis=(2, 3))


def global_average_pool_backward(dy: Floats, x: Floats) -> Floats:
    """Every pixel of a map gets the same: (N, C) to (N, C, H, W)."""
    height, width = x.shape[2:]
    return np.broadcast_to(dy[:, :, None, None] / (height * width), x.shape)


def _output_shape(x: Floats, kernel: int, stride: int, padding: int) -> tuple[int, ...]:
    return *x.shape[:2], *(output_size(size, kernel, stride, padding) for size in x.shape[2:])
