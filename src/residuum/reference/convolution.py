"""Two-dimensional convolution.

As everywhere in the field the kernel is not flipped (a cross-correlation): with x padded by zeros,

    y[n, o, h, w] = bias[o] + sum over c, i, j of  weight[o, c, i, j]  x[n, c, stride h + i, stride w + j]

In `groups` groups, the g-th share of the output channels sees the g-th share of the input channels alone
(Krizhevsky et al. 2012, section 3.2; Xie et al. 2017, section 3). The loop is over the few positions (i, j) in the
kernel; at each, all the images are multiplied by one matrix, as by a 1x1 convolution.
"""

import numpy as np

from residuum.reference.arrays import Floats
from residuum.reference.windows import crop, output_size, pad, seen_at


def conv2d(
    x: Floats, weight: Floats, bias: Floats | None = None, stride: int = 1, padding: int = 0, groups: int = 1
) -> Floats:
    """x (N, C, H, W), weight (O, C / groups, K_h, K_w), bias (O,) to (N, O, H', W').

    H' = (H + 2 padding - K_h) // stride + 1, W' likewise. Goodfellow et al. 2016, section 9.5.
    """
    kernel = weight.shape[2], weight.shape[3]
    padded, grouped = _by_group(pad(x, padding), groups), _weight_by_group(weight, groups)
    sizes = [output_size(size, k, stride, padding) for size, k in zip(x.shape[2:], kernel, strict=True)]
    y_by_group = np.zeros((len(x), groups, grouped.shape[1], *sizes))
    for i, j in np.ndindex(*kernel):
        pixels = seen_at(padded, i, j, kernel, stride)
        y_by_group += np.einsum("ngchw,goc->ngohw", pixels, grouped[..., i, j])
    y = _together(y_by_group)
    return y if bias is None else y + bias[:, None, None]


def conv2d_backward(
    dy: Floats,
    x: Floats,
    weight: Floats,
    bias: Floats | None = None,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> tuple[Floats, Floats, Floats | None]:
    """dy (N, O, H', W') to (dx, dweight, dbias). Goodfellow et al. 2016, equations 9.11 and 9.13.

    y is a sum of products weight x pixel, so each weight gets dy times the pixels it has met, and each pixel dy
    times the weights it has met.
    """
    kernel = weight.shape[2], weight.shape[3]
    padded, grouped = _by_group(pad(x, padding), groups), _weight_by_group(weight, groups)
    dy_by_group = _by_group(dy, groups)
    dpadded, dweight = np.zeros_like(padded), np.zeros_like(grouped)
    for i, j in np.ndindex(*kernel):
        pixels, dpixels = (seen_at(image, i, j, kernel, stride) for image in (padded, dpadded))
        dweight[..., i, j] = np.einsum("ngohw,ngchw->goc", dy_by_group, pixels)
        dpixels += np.einsum("ngohw,goc->ngchw", dy_by_group, grouped[..., i, j])
    dbias = None if bias is None else dy.sum(axis=(0, 2, 3))
    return crop(_together(dpadded), padding), dweight.reshape(weight.shape), dbias


def _by_group(x: Floats, groups: int) -> Floats:
    return x.reshape(len(x), groups, -1, *x.shape[2:])


def _weight_by_group(weight: Floats, groups: int) -> Floats:
    return weight.reshape(groups, -1, *weight.shape[1:])


def _together(x: Floats) -> Floats:
    return x.reshape(len(x), -1, *x.shape[3:])
