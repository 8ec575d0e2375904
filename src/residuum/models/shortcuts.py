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


class Gate(nn.Conv2d):
    """A 1x1 convolution (N, in, H, W) to (N, out, H', W') whose bias starts at `bias`, to be put through a sigmoid."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, bias: float) -> None:
        super().__init__(in_channels, out_channels, 1, stride)
        assert self.bias is not None
        nn.init.constant_(self.bias, bias)


class Gated(ZeroPadded):
    """y = F(x) T(x) + x (1 - T(x)) with T = sigmoid(1x1 convolution): a highway layer's join.

    Srivastava et al. 2015, "Highway Networks", equation 3; the 1x1 gate is He et al. 2016's (section 3.1,
    exclusive gating). Where the size changes, x is carried as by option A. The gate's bias starts at -2,
    between the paper's examples of -1 and -3 (its section 2.2): at first the layer mostly carries.
    """

    INITIAL_BIAS = -2.0

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.gate = Gate(in_channels, out_channels, stride, self.INITIAL_BIAS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        transform = torch.sigmoid(self.gate(x))
        return residual * transform + self.carry(x) * (1 - transform)


class ShortcutGated(ZeroPadded):
    """y = F(x) + x (1 - g(x)) with g = sigmoid(1x1 convolution). He et al. 2016, section 3.1, shortcut-only gating.

    Where the size changes, x is carried as by option A. The gate's bias starts at -6, the better of the paper's two
    (its table 1): at first the shortcut is nearly the identity.
    """

    INITIAL_BIAS = -6.0

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.gate = Gate(in_channels, out_channels, stride, self.INITIAL_BIAS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        residual += self.carry(x) * (1 - torch.sigmoid(self.gate(x)))
        return residual


class Constant(ZeroPadded):
    """y = 0.5 F(x) + 0.5 x. He et al. 2016, section 3.1, constant scaling; x as by option A where the size changes."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        residual += self.carry(x)
        return residual * 0.5


class Dropped(ZeroPadded):
    """y = F(x) + x with each value of x dropped by probability 0.5. He et al. 2016, section 3.1, dropout shortcut.

    The kept ones are not scaled up: the paper counts on an expectation of 0.5 x, which is what is carried in evaluation
    (Hinton et al. 2012). Where the size changes, x is carried as by option A.
    """

    KEEP = 0.5

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        carried = self.carry(x)
        kept = torch.empty_like(carried).bernoulli_(self.KEEP) if self.training else self.KEEP
        residual += carried * kept
        return residual


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


def shortcut_gated(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """A gate on every shortcut, and none on the branch. He et al. 2016."""
    return ShortcutGated(in_channels, out_channels, stride)


def constant(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """Half of each path. He et al. 2016."""
    return Constant(in_channels, out_channels, stride)


def dropped(in_channels: int, out_channels: int, stride: int, projection: ProjectionKind) -> Shortcut:
    """Dropout on every shortcut. He et al. 2016."""
    return Dropped(in_channels, out_channels, stride)


SHORTCUTS: dict[str, ShortcutBuilder] = {
    "A": option_a,
    "B": option_b,
    "C": option_c,
    "none": no_shortcut,
    "gated": gated,
    "shortcut-gated": shortcut_gated,
    "constant": constant,
    "dropout": dropped,
}
