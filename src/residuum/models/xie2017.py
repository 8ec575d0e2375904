"""Xie, Girshick, Dollár, Tu, He 2017, "Aggregated Residual Transformations" (arXiv 1611.05431): ResNeXt.

Cardinality x width: 32x4d is 32 groups of 4 channels in the first stage. The stride sits in the grouped 3x3
convolution.
"""

from functools import partial
from typing import Unpack

from residuum.models.trunk import Options, ResNet, cifar_stem
from residuum.models.units import Bottleneck, in_3x3

ResNeXtUnit = partial(Bottleneck, placement=in_3x3)


def resnext50_32x4d(**options: Unpack[Options]) -> ResNet:
    """50 layers; table 3: 22.2 % top-1 error."""
    return ResNet(partial(ResNeXtUnit, groups=32, base_width=4), (3, 4, 6, 3), **options)


def resnext101_32x4d(**options: Unpack[Options]) -> ResNet:
    """101 layers; table 3: 21.2 % top-1 error."""
    return ResNet(partial(ResNeXtUnit, groups=32, base_width=4), (3, 4, 23, 3), **options)


def resnext101_32x8d(**options: Unpack[Options]) -> ResNet:
    """101 layers of twice the width; torchvision's network."""
    return ResNet(partial(ResNeXtUnit, groups=32, base_width=8), (3, 4, 23, 3), **options)


def resnext101_64x4d(**options: Unpack[Options]) -> ResNet:
    """101 layers of twice the cardinality."""
    return ResNet(partial(ResNeXtUnit, groups=64, base_width=4), (3, 4, 23, 3), **options)


def resnext29_8x64d(**options: Unpack[Options]) -> ResNet:
    """CIFAR: 3.65 % error on CIFAR-10, 17.77 % on CIFAR-100."""
    return cifar_resnext(8, 64, **options)


def resnext29_16x64d(**options: Unpack[Options]) -> ResNet:
    """CIFAR: 3.58 % error on CIFAR-10, 17.31 % on CIFAR-100."""
    return cifar_resnext(16, 64, **options)


def cifar_resnext(cardinality: int, width: int, **options: Unpack[Options]) -> ResNet:
    """CIFAR: 29 layers, `cardinality` groups of `width` channels in the first stage. Section 5.2."""
    unit = partial(ResNeXtUnit, groups=cardinality, base_width=width)
    return ResNet(unit, (3, 3, 3), (64, 128, 256), partial(cifar_stem, width=64), **options)
