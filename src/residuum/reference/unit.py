"""The basic residual unit and its plain twin: He et al. 2015, figures 2 and 5, equation 1.

    branch:    F(x) = BN(conv3x3(ReLU(BN(conv3x3(x)))))       batch norm in training mode
    residual:  y = ReLU(F(x) + shortcut(x))
    plain:     y = ReLU(F(x))

Going backward, the residual unit's dx has the shortcut's share, which no weight has touched, beside the branch's;
the plain unit's has the branch's alone.
"""

from typing import NamedTuple

import numpy as np

from residuum.reference.activations import relu, relu_backward
from residuum.reference.arrays import Floats
from residuum.reference.convolution import conv2d, conv2d_backward
from residuum.reference.normalisation import batch_norm_training, batch_norm_training_backward


class Branch(NamedTuple):
    """The parameters of F; or the gradients by them."""

    weight1: Floats  # (planes, in_channels, 3, 3)
    gamma1: Floats  # (planes,)
    beta1: Floats  # (planes,)
    weight2: Floats  # (planes, planes, 3, 3)
    gamma2: Floats  # (planes,)
    beta2: Floats  # (planes,)


def branch(x: Floats, parameters: Branch, stride: int = 1) -> Floats:
    """F(x): (N, in_channels, H, W) to (N, planes, ceil(H / stride), ceil(W / stride))."""
    p = parameters
    a = conv2d(x, p.weight1, stride=stride, padding=1)
    b = batch_norm_training(a, p.gamma1, p.beta1)
    c = conv2d(relu(b), p.weight2, padding=1)
    return batch_norm_training(c, p.gamma2, p.beta2)


def branch_backward(dy: Floats, x: Floats, parameters: Branch, stride: int = 1) -> tuple[Floats, Branch]:
    """(dx, gradients by the parameters): forward once more, then each layer's backward, last layer first."""
    p = parameters
    a = conv2d(x, p.weight1, stride=stride, padding=1)
    b = batch_norm_training(a, p.gamma1, p.beta1)
    h = relu(b)
    c = conv2d(h, p.weight2, padding=1)

    dc, dgamma2, dbeta2 = batch_norm_training_backward(dy, c, p.gamma2, p.beta2)
    dh, dweight2, _ = conv2d_backward(dc, h, p.weight2, padding=1)
    db = relu_backward(dh, b)
    da, dgamma1, dbeta1 = batch_norm_training_backward(db, a, p.gamma1, p.beta1)
    dx, dweight1, _ = conv2d_backward(da, x, p.weight1, stride=stride, padding=1)
    return dx, Branch(dweight1, dgamma1, dbeta1, dweight2, dgamma2, dbeta2)


def option_a(x: Floats, channels: int, stride: int = 1) -> Floats:
    """The shortcut without parameters: x itself where the size stays.

    Else every stride-th pixel, and zeros for the channels x lacks. He et al. 2015, section 3.3, option A.
    """
    missing = channels - x.shape[1]
    return np.pad(x[:, :, ::stride, ::stride], [(0, 0), (0, missing), (0, 0), (0, 0)])


def option_a_backward(dy: Floats, x: Floats, stride: int = 1) -> Floats:
    """dy goes to the pixels that were carried, unchanged."""
    dx = np.zeros_like(x)
    dx[:, :, ::stride, ::stride] = dy[:, : x.shape[1]]
    return dx


def residual_unit(x: Floats, parameters: Branch, stride: int = 1) -> Floats:
    """ReLU(F(x) + shortcut(x)): (N, in_channels, H, W) to (N, planes, ceil(H / stride), ceil(W / stride))."""
    return relu(_residual_sum(x, parameters, stride))


def residual_unit_backward(dy: Floats, x: Floats, parameters: Branch, stride: int = 1) -> tuple[Floats, Branch]:
    """(dx, gradients by the parameters). He et al. 2016, equation 5: the sum's gradient reaches x by both paths."""
    dsum = relu_backward(dy, _residual_sum(x, parameters, stride))
    dx, dparameters = branch_backward(dsum, x, parameters, stride)
    return dx + option_a_backward(dsum, x, stride), dparameters


def plain_unit(x: Floats, parameters: Branch, stride: int = 1) -> Floats:
    """ReLU(F(x)): the same layers without the shortcut. He et al. 2015, section 3.3, "plain network"."""
    return relu(branch(x, parameters, stride))


def plain_unit_backward(dy: Floats, x: Floats, parameters: Branch, stride: int = 1) -> tuple[Floats, Branch]:
    """(dx, gradients by the parameters)."""
    return branch_backward(relu_backward(dy, branch(x, parameters, stride)), x, parameters, stride)


def _residual_sum(x: Floats, parameters: Branch, stride: int) -> Floats:
    f = branch(x, parameters, stride)
    return f + option_a(x, f.shape[1], stride)
