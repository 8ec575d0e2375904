"""He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027)."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from torch import Tensor, nn

from residuum.models.shortcuts import BareProjection, Projection, ShortcutBuilder, option_a
from residuum.models.trunk import Options, ResNet, Stem, cifar_stem, imagenet_stem
from residuum.models.units import (
    Bottleneck,
    StridePlacement,
    Unit,
    UnitBuilder,
    conv1x1,
    conv3x3,
    in_3x3,
    in_first_1x1,
)


class PreActUnit(Unit):
    """BN-ReLU before each convolution, nothing after the sum (figure 1b).

    An identity shortcut, or a gate, carries the unit's input as it came; a projection reads the activated
    input, as the paper's appendix says of projections.
    """

    bn1: nn.BatchNorm2d
    activates_shortcut: bool

    def _attach(self, shortcut: ShortcutBuilder, stride: int) -> None:
        self.downsample = shortcut(self.bn1.num_features, self.out_channels, stride, BareProjection)
        self.activates_shortcut = isinstance(self.downsample, Projection)

    def residual(self, activated: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(self.bn1(x))
        return self.downsample(activated if self.activates_shortcut else x, self.residual(activated))


class PreActBasic(PreActUnit):
    """Two pre-activated 3x3 convolutions."""

    def __init__(self, in_channels: int, planes: int, stride: int, shortcut: ShortcutBuilder, drop_path: float) -> None:
        super().__init__(drop_path)
        self.out_channels = planes
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self._attach(shortcut, stride)

    def residual(self, activated: Tensor) -> Tensor:
        x = self.conv1(activated)
        x = self.conv2(self.activation(self.bn2(x)))
        return self.drop_path(x)

    def zero_residual(self) -> None:
        """Zero the last convolution: behind it stands no normalisation whose gamma could be zero."""
        nn.init.zeros_(self.conv2.weight)


class PreActBottleneck(PreActUnit):
    """Pre-activated 1x1, 3x3 and 1x1 convolutions."""

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        shortcut: ShortcutBuilder,
        drop_path: float,
        placement: StridePlacement = in_first_1x1,
    ) -> None:
        super().__init__(drop_path)
        self.out_channels = planes * Bottleneck.EXPANSION
        stride1, stride2 = placement(stride)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, planes, stride1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, stride2)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = conv1x1(planes, self.out_channels)
        self._attach(shortcut, stride)

    def residual(self, activated: Tensor) -> Tensor:
        x = self.conv1(activated)
        x = self.conv2(self.activation(self.bn2(x)))
        x = self.conv3(self.activation(self.bn3(x)))
        return self.drop_path(x)

    def zero_residual(self) -> None:
        """Zero the last convolution: behind it stands no normalisation whose gamma could be zero."""
        nn.init.zeros_(self.conv3.weight)


class PreActResNet(ResNet):
    """The trunk for pre-activation units.

    The appendix's two special units: the first activation follows the stem and comes before the split into
    two paths, so the first unit's shortcut reads it too; the last unit is followed by an extra BN-ReLU,
    `bn_last`. The stem has no normalisation of its own. On ImageNet the first activation comes after the
    max-pool, as in timm.
    """

    def __init__(
        self,
        unit: UnitBuilder,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: Stem = imagenet_stem,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(unit, blocks, widths, stem, **options)
        del self.bn1
        first = self.units()[0]
        assert isinstance(first, PreActUnit)
        first.activates_shortcut = True
        self.bn_last = nn.BatchNorm2d(self.fc.in_features)

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.conv1(x))

    def head(self, x: Tensor) -> Tensor:
        return super().head(self.activation(self.bn_last(x)))


# ImageNet. The stride sits in the 3x3 convolution, as in the code ResNet-200 was released with
# (fb.resnet.torch).

_ImageNetBottleneck = partial(PreActBottleneck, placement=in_3x3)


def preact_resnet18(**options: Unpack[Options]) -> ResNet:
    """18 layers."""
    return PreActResNet(PreActBasic, (2, 2, 2, 2), **options)


def preact_resnet34(**options: Unpack[Options]) -> ResNet:
    """34 layers."""
    return PreActResNet(PreActBasic, (3, 4, 6, 3), **options)


def preact_resnet50(**options: Unpack[Options]) -> ResNet:
    """50 layers; timm's resnetv2_50."""
    return PreActResNet(_ImageNetBottleneck, (3, 4, 6, 3), **options)


def preact_resnet101(**options: Unpack[Options]) -> ResNet:
    """101 layers; timm's resnetv2_101."""
    return PreActResNet(_ImageNetBottleneck, (3, 4, 23, 3), **options)


def preact_resnet152(**options: Unpack[Options]) -> ResNet:
    """152 layers; timm's resnetv2_152. Table 5: 21.1 % top-1 error at 320 pixels."""
    return PreActResNet(_ImageNetBottleneck, (3, 8, 36, 3), **options)


def preact_resnet200(**options: Unpack[Options]) -> ResNet:
    """200 layers. Table 5: 20.7 % top-1 error at 320 pixels."""
    return PreActResNet(_ImageNetBottleneck, (3, 24, 36, 3), **options)


# CIFAR. Basic units keep the identity shortcuts of He et al. 2015; bottlenecks project where the size
# changes, with the stride in the first 1x1, as in the authors' resnet-1k-layers.


def cifar_preact_resnet(n: int, **options: Unpack[Options]) -> ResNet:
    """6n+2 layers of basic units; n = 18, table 2: 6.37 % error on CIFAR-10."""
    options.setdefault("shortcut", option_a)
    return PreActResNet(PreActBasic, (n, n, n), (16, 32, 64), cifar_stem, **options)


def preact_resnet164(**options: Unpack[Options]) -> ResNet:
    """54 bottlenecks; table 2: 5.46 % error on CIFAR-10."""
    return PreActResNet(PreActBottleneck, (18, 18, 18), (16, 32, 64), cifar_stem, **options)


def preact_resnet1001(**options: Unpack[Options]) -> ResNet:
    """333 bottlenecks; 4.92 % error on CIFAR-10."""
    return PreActResNet(PreActBottleneck, (111, 111, 111), (16, 32, 64), cifar_stem, **options)
