"""The units a residual network repeats: He et al. 2015, figure 5 and equation 1.

Every unit takes (N, in_channels, H, W) and returns (N, out_channels, ceil(H / stride), ceil(W / stride)).
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from residuum.models.shortcuts import Projection, Shortcut, ShortcutBuilder

Activation = Callable[[Tensor], Tensor]
"""What stands between convolutions. It may overwrite what it is given."""

# In place: what precedes each activation here (a normalisation, a sum) does not need its output for the gradient,
# and a training step on a CPU is a tenth faster.
relu = partial(F.relu, inplace=True)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, in place."""
    return x.tanh_()


ACTIVATIONS: dict[str, Activation] = {"relu": relu, "tanh": tanh}


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A pointwise convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A padded 3x3 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)


StridePlacement = Callable[[int], tuple[int, int]]


def in_first_1x1(stride: int) -> tuple[int, int]:
    """The strides of a bottleneck's 1x1 and 3x3 convolution as in He et al.'s released networks."""
    return stride, 1


def in_3x3(stride: int) -> tuple[int, int]:
    """The strides of a bottleneck's 1x1 and 3x3 convolution in "v1.5": torchvision, timm, NVIDIA, ResNeXt."""
    return 1, stride


class DropPath(nn.Module):
    """Stochastic depth: in training, each image's branch is dropped with probability `rate`.

    Kept ones are divided by 1 - rate, so that the expectation stays. Huang et al. 2016, who scale in testing.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.rate
        return x * (x.new_empty(len(x), 1, 1, 1).bernoulli_(keep) / keep)


class Unit(nn.Module):
    """What the trunk knows of a unit: its output width, its activation, and how to make its branch start at zero."""

    out_channels: int
    downsample: Shortcut  # torchvision's name for the shortcut, so that its files load

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.activation: Activation = relu  # the trunk puts its own here
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def zero_residual(self) -> None:
        """Make F(x) = 0 by zeroing the branch's last weights. Goyal et al. 2017, section 5.1."""
        raise NotImplementedError


UnitBuilder = Callable[[int, int, int, ShortcutBuilder, float], Unit]
"""(in_channels, planes, stride, shortcut, drop_path) -> Unit"""


class Basic(Unit):
    """Two 3x3 convolutions. He et al. 2015, figure 5 left."""

    def __init__(self, in_channels: int, planes: int, stride: int, shortcut: ShortcutBuilder, drop_path: float) -> None:
        super().__init__(drop_path)
        self.out_channels = planes
        self.conv1 = conv3x3(in_channels, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(in_channels, self.out_channels, stride, Projection)

    def residual(self, x: Tensor) -> Tensor:
        x = self.activation(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.drop_path(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.downsample(x, self.residual(x)))

    def zero_residual(self) -> None:
        nn.init.zeros_(self.bn2.weight)


class Bottleneck(Unit):
    """1x1, 3x3, 1x1: narrow, convolve, widen fourfold. He et al. 2015, figure 5 right.

    groups and base_width make it ResNeXt's and the wide nets' unit: the 3x3 convolution is `groups` groups of
    `base_width` channels each where planes is 64, and proportionally more further down.
    """

    EXPANSION = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        shortcut: ShortcutBuilder,
        drop_path: float,
        placement: StridePlacement = in_first_1x1,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        super().__init__(drop_path)
        self.out_channels = planes * self.EXPANSION
        width = planes * base_width // 64 * groups
        stride1, stride2 = placement(stride)
        self.conv1 = conv1x1(in_channels, width, stride1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride2, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, self.out_channels)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.downsample = shortcut(in_channels, self.out_channels, stride, Projection)

    def residual(self, x: Tensor) -> Tensor:
        x = self.activation(self.bn1(self.conv1(x)))
        x = self.activation(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.drop_path(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.downsample(x, self.residual(x)))

    def zero_residual(self) -> None:
        nn.init.zeros_(self.bn3.weight)
