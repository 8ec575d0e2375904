"""The fully connected layer."""

from residuum.reference.arrays import Floats


def linear(x: Floats, weight: Floats, bias: Floats | None = None) -> Floats:
    """y = x W^T + b: x (N, in), weight (out, in), bias (out,) to (N, out).

    Goodfellow et al. 2016, "Deep Learning", section 6.1.
    """
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(
    dy: Floats, x: Floats, weight: Floats, bias: Floats | None = None
) -> tuple[Floats, Floats, Floats | None]:
    """dy (N, out) to (dx, dweight, dbias). Goodfellow et al. 2016, section 6.5.6."""
    return dy @ weight, dy.T @ x, None if bias is None else dy.sum(axis=0)
