"""Which pixels a sliding window sees: what convolution and pooling share.

A window of height K_h and width K_w stands at every stride-th pixel of the padded image. Along an axis of H pixels
it finds room (H + 2 padding - K) // stride + 1 times: Dumoulin and Visin 2016, "A guide to convolution arithmetic
for deep learning", relationship 6.
"""

import numpy as np

from residuum.reference.arrays import Floats


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """How often a window of `kernel` pixels finds room along an axis of `size` pixels."""
    return (size + 2 * padding - kernel) // stride + 1


def pad(x: Floats, padding: int, value: float = 0.0) -> Floats:
    """x (..., H, W) with `padding` rows and columns of `value` on each side."""
    around = [(0, 0)] * (x.ndim - 2) + [(padding, padding)] * 2
    return np.pad(x, around, constant_values=value)


def crop(x: Floats, padding: int) -> Floats:
    """x (..., H, W) without `padding` rows and columns on each side: what undoes `pad`."""
    height, width = x.shape[-2:]
    return x[..., padding : height - padding, padding : width - padding]


def seen_at(padded: Floats, row: int, column: int, kernel: tuple[int, int], stride: int) -> Floats:
    """The pixel at (row, column) inside every window: (..., H', W') of padded (..., H, W), as a view.

    As it is a view, adding to it adds to the pixels of `padded` themselves.
    """
    rows = output_size(padded.shape[-2], kernel[0], stride, 0)
    columns = output_size(padded.shape[-1], kernel[1], stride, 0)
    return padded[..., row : row + stride * rows : stride, column : column + stride * columns : stride]
