"""Zagoruyko, Komodakis 2016, "Wide Residual Networks" (arXiv 1605.07146)."""

from functools import partial
from typing import Unpack

from residuum.models.he2016 import PreActBasic, PreActResNet
from residuum.models.trunk import Options, ResNet, cifar_stem
from residuum.models.units import Bottleneck, in_3x3


def cifar_wide_resnet(n: int, k: int, **options: Unpack[Options]) -> ResNet:
    """WRN-(6n+4)-k for CIFAR: pre-activation basic units, k times as wide, option B."""
    return PreActResNet(PreActBasic, (n, n, n), (16 * k, 32 * k, 64 * k), cifar_stem, **options)


def wide_resnet50_2(**options: Unpack[Options]) -> ResNet:
    """ImageNet: 50 layers, 3x3 convolutions of twice the width; torchvision's and timm's network."""
    return ResNet(partial(Bottleneck, placement=in_3x3, base_width=128), (3, 4, 6, 3), **options)


def wide_resnet101_2(**options: Unpack[Options]) -> ResNet:
    """ImageNet: 101 layers, 3x3 convolutions of twice the width; torchvision's and timm's network."""
    return ResNet(partial(Bottleneck, placement=in_3x3, base_width=128), (3, 4, 23, 3), **options)
