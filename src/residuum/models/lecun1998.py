"""LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition": LeNet-5."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_SIZE = 32

# Table I: the maps of S2 that each of C3's sixteen maps reads.
C3_READS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


def squash(x: Tensor) -> Tensor:
    """The paper's sigmoid: 1.7159 tanh(2x/3), which maps 1 to 1 and -1 to -1 (appendix A)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class SubSampling(nn.Module):
    """Each 2x2 square's sum, times a trainable coefficient, plus a trainable bias; one pair a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (4 * F.avg_pool2d(x, 2)) + self.bias


class PartialConvolution(nn.Module):
    """C3: a 5x5 convolution in which each output map reads only some input maps (table I)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(reads), 1, 5) for reads in C3_READS)

    def forward(self, x: Tensor) -> Tensor:
        single = x.chunk(x.shape[1], dim=1)
        read = (torch.cat([single[number] for number in reads], dim=1) for reads in C3_READS)
        return torch.cat([convolution(maps) for convolution, maps in zip(self.maps, read, strict=True)], dim=1)


class LeNet5(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes).

    60,000 trainable parameters up to F6 for one input channel, as the paper counts. The fixed Gaussian output
    units (codes drawn for printed characters) are a trainable linear layer here, for cross-entropy and any
    classes. Smaller images are centred in 32x32, as the paper does with MNIST's 28x28; larger ones are
    averaged after C5.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.sub2 = SubSampling(6)
        self.conv3 = PartialConvolution()
        self.sub4 = SubSampling(16)
        self.conv5 = nn.Conv2d(16, 120, 5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc6 = nn.Linear(120, 84)
        self.fc = nn.Linear(84, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.conv1(_centred(x)))
        x = squash(self.sub2(x))
        x = squash(self.conv3(x))
        x = squash(self.sub4(x))
        x = squash(self.conv5(x))
        x = squash(self.fc6(torch.flatten(self.avgpool(x), 1)))
        return self.fc(x)


def _centred(x: Tensor) -> Tensor:
    height, width = (max(0, INPUT_SIZE - length) for length in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def _initialise(network: nn.Module) -> None:
    """Uniform with variance 1 / fan-in, biases zero: LeCun et al. 1998, "Efficient BackProp", section 4.6.

    The +-2.4 / fan-in of LeNet-5's own appendix fades the signal from layer to layer, which its second-order
    training overcame and plain SGD does not for many epochs. A sub-sampling unit has four inputs.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, SubSampling)):
            fan_in = 4 if isinstance(module, SubSampling) else module.weight[0].numel()
            bound = math.sqrt(3 / fan_in)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def lenet5(*, num_classes: int = 10, in_channels: int = 1) -> LeNet5:
    """LeNet-5 with its partial connections, trainable sub-sampling and scaled tanh."""
    return LeNet5(num_classes=num_classes, in_channels=in_channels)
