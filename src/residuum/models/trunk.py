"""The trunk all residual networks share: stem, stages of units, global average pool, fully connected layer.

A network differs from another by the parts passed in (unit, stem, shortcut, widths), never by a flag. Its
children carry torchvision's names: conv1, bn1, layer1 ... layer4, fc.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from residuum.models.shortcuts import ShortcutBuilder, option_b
from residuum.models.units import Activation, Unit, UnitBuilder, conv3x3, relu

Stem = Callable[[int], tuple[nn.Conv2d, nn.Module]]
"""in_channels -> (first convolution, pooling)"""


def imagenet_stem(in_channels: int) -> tuple[nn.Conv2d, nn.Module]:
    """7x7/2 convolution to 64 channels, 3x3/2 max-pool. He et al. 2015, table 1."""
    conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    return conv, nn.MaxPool2d(3, stride=2, padding=1)


def cifar_stem(in_channels: int, width: int = 16) -> tuple[nn.Conv2d, nn.Module]:
    """3x3 convolution, no pooling. He et al. 2015, section 4.2."""
    return conv3x3(in_channels, width), nn.Identity()


class Options(TypedDict, total=False):
    """What every builder of a residual network takes."""

    num_classes: int
    in_channels: int
    shortcut: ShortcutBuilder
    drop_path: float
    activation: Activation


class ResNet(nn.Module):
    """Images (N, in_channels, H, W), normalised, to logits (N, num_classes).

    unit: builder of one unit; blocks: units in each stage; widths: each stage's planes; every stage after the
    first halves the resolution in its first unit. drop_path: the last unit's rate of stochastic depth; the
    l-th of L units has l/L of it (Huang et al. 2016, the linear rule). activation: of the trunk and of every unit.
    """

    def __init__(
        self,
        unit: UnitBuilder,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: Stem = imagenet_stem,
        *,
        shortcut: ShortcutBuilder = option_b,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path: float = 0.0,
        activation: Activation = relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        assert len(blocks) == len(widths)
        self.conv1, self.maxpool = stem(in_channels)
        self.bn1 = nn.BatchNorm2d(self.conv1.out_channels)
        channels = self.conv1.out_channels
        rates = _linear_rates(drop_path, sum(blocks))
        for number, (count, planes) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = nn.Sequential()
            for index in range(count):
                stride = 2 if number > 1 and index == 0 else 1
                stage.append(built := unit(channels, planes, stride, shortcut, next(rates)))
                built.activation = activation
                channels = built.out_channels
            self.add_module(f"layer{number}", stage)
        self.number_of_stages = len(blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def stages(self) -> list[nn.Sequential]:
        """layer1, layer2, ...: the units of one resolution each."""
        return [getattr(self, f"layer{number}") for number in range(1, self.number_of_stages + 1)]

    def units(self) -> list[Unit]:
        """Every residual unit from input to output."""
        return [module for module in self.modules() if isinstance(module, Unit)]

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.activation(self.bn1(self.conv1(x))))

    def head(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages():
            x = stage(x)
        return self.head(x)


def _linear_rates(last: float, units: int) -> Iterator[float]:
    return (last * number / units for number in range(1, units + 1))


def initialise(network: nn.Module) -> None:
    """He initialisation: convolutions normal with variance 2 / (k * k * out_channels), no shift, no bias.

    He et al., arXiv 1502.01852, allow fan-in or fan-out; fan-out, which keeps the gradient's scale, is
    what the authors' and torchvision's code use. Batch normalisation starts as gamma 1, beta 0. The
    classifier has no rectifier behind it, so the factor 2 does not apply: its weights keep torch's
    U(-1/sqrt(n), 1/sqrt(n)), its biases are zero.
    """
    for module in network.modules():
        # Drawing nothing takes half a millisecond a layer, and nets are built on meta to be counted.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
