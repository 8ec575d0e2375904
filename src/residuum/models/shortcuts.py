"""The second path of a residual unit: what is carried past its convolutions, and how both paths are joined.

A shortcut is a module `(x, residual) -> sum`: x (N, in, H, W) is the unit's input, residual (N, out, H', W')
the result of its convolutions, which the sum overwrites. The paths are joined here, not in the unit, because
a highway gate weighs both. Builders are `(in_channels, out_channels, stride, projection) -> Shortcut`, where
`projection` is the unit's own kind (`Projection` with batch normalisation, `BareProjection` without).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Identity(nn.Module):
    """y = F(x) + x."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        residual += x
        return residual


class ZeroPadded(nn.Module):
    """Option A: every stride-th pixel of x, the channels it lacks filled with zeros. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.missing = out_channels - in_channels
        self.stride = stride

    def carry(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        residual += self.carry(x)
        return residual


class Projection(nn.Sequential):
    """A strided 1x1 convolution and batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x)
        residual += x
        return residual


class BareProjection(Projection):
    """A strided 1x1 convolution alone: for pre-activation units, which normalise the sum afterwards."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        del self[1]


class Nothing(nn.Module):
    """y = F(x): a plain network's unit."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual


class Gated(ZeroPadded):
    """y = F(x) T(x) + x (1 - T(x)) with T = sigmoid(1x1 convolution): a highway layer's join.

    Srivastava et al. 2015, "Highway Networks", equation 3; the 1x1 gate is He et al. 2016's (section 3.1,
    exclusive gating). Where the size changes, x is carried as by option A. The gate's bias starts at -2,
    between the paper's examples of -1 and -3 (its section 2.2): at first the layer mostly carries.
    """

    INITIAL_BIAS = -2.0

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride)
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, self.INITIAL_BIAS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        transform = torch.sigmoid(self.gate(x))
        return residual * transform + self.carry(x) * (1 - transform)


Shortcut = Identity | ZeroPadded | Projection | Nothing
ProjectionKind = type[Projection]
ShortcutBuilder = Callable[[int, int, int, ProjectionKind], Shortcut]


def option_a(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """Identity; zero-padded channels where the size changes. He et al. 2015, section 3.3."""
    if stride == 1 and in_channels == out_channels:
        return Identity()
    return ZeroPadded(in_channels, out_channels, stride)


def option_b(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """Identity; a projection where the size changes. He et al. 2015, section 3.3."""
    if stride == 1 and in_channels == out_channels:
        return Identity()
    return projection(in_channels, out_channels, stride)


def option_c(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """A projection everywhere. He et al. 2015, section 3.3."""
    return projection(in_channels, out_channels, stride)


def no_shortcut(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """No second path: the plain twin."""
    return Nothing()


def gated(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """A highway layer's gate on every unit. Srivastava et al. 2015."""
    return Gated(in_channels, out_channels, stride)


SHORTCUTS: dict[str, ShortcutBuilder] = {
    "A": option_a,
    "B": option_b,
    "C": option_c,
    "none": no_shortcut,
    "gated": gated,
}
