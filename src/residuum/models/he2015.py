"""He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385)."""

from functools import partial
from typing import Unpack

from residuum.models.shortcuts import no_shortcut, option_a
from residuum.models.trunk import Options, ResNet, cifar_stem
from residuum.models.units import Basic, Bottleneck, in_3x3

BottleneckV15 = partial(Bottleneck, placement=in_3x3)


# Table 1: ImageNet. The stride sits in each stage's first 1x1 convolution; shortcuts are option B.


def resnet18(**options: Unpack[Options]) -> ResNet:
    """18 layers; 1.8 G multiply-adds."""
    return ResNet(Basic, (2, 2, 2, 2), **options)


def resnet34(**options: Unpack[Options]) -> ResNet:
    """34 layers; 3.6 G multiply-adds."""
    return ResNet(Basic, (3, 4, 6, 3), **options)


def resnet50(**options: Unpack[Options]) -> ResNet:
    """50 layers; 3.8 G multiply-adds."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


def resnet101(**options: Unpack[Options]) -> ResNet:
    """101 layers; 7.6 G multiply-adds."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **options)


def resnet152(**options: Unpack[Options]) -> ResNet:
    """152 layers; 11.3 G multiply-adds."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **options)


# "v1.5": the same table with the stride in the 3x3 convolution; torchvision's and timm's networks.


def resnet50_v1_5(**options: Unpack[Options]) -> ResNet:
    """50 layers, stride in the 3x3; about 4.1 G multiply-adds."""
    return ResNet(BottleneckV15, (3, 4, 6, 3), **options)


def resnet101_v1_5(**options: Unpack[Options]) -> ResNet:
    """101 layers, stride in the 3x3."""
    return ResNet(BottleneckV15, (3, 4, 23, 3), **options)


def resnet152_v1_5(**options: Unpack[Options]) -> ResNet:
    """152 layers, stride in the 3x3."""
    return ResNet(BottleneckV15, (3, 8, 36, 3), **options)


# Section 4.1: the plain twins, the same layers without shortcuts.


def plain18(**options: Unpack[Options]) -> ResNet:
    """resnet18 without shortcuts."""
    return resnet18(**_plain(options))


def plain34(**options: Unpack[Options]) -> ResNet:
    """resnet34 without shortcuts."""
    return resnet34(**_plain(options))


# Section 4.2: CIFAR-10. 6n+2 layers, 16, 32 and 64 channels, shortcuts of option A.


def cifar_resnet(n: int, **options: Unpack[Options]) -> ResNet:
    """6n+2 layers: n units at each of 32x32, 16x16 and 8x8."""
    options.setdefault("shortcut", option_a)
    return ResNet(Basic, (n, n, n), (16, 32, 64), cifar_stem, **options)


def cifar_plain(n: int, **options: Unpack[Options]) -> ResNet:
    """6n+2 layers without shortcuts: exactly as many parameters as `cifar_resnet(n)`."""
    return cifar_resnet(n, **_plain(options))


def _plain(options: Options) -> Options:
    return {**options, "shortcut": no_shortcut}
