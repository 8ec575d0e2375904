"""Page 2019, "How to Train Your ResNet" (myrtle.ai): the nine-layer network of the fast CIFAR-10 trainings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum.models.trunk import initialise
from residuum.models.units import conv3x3, relu

_LOGIT_SCALE = 0.125


class Convolved(nn.Module):
    """3x3 convolution, batch normalisation, ReLU: (N, in_channels, H, W) to (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, out_channels)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """x + F(x) with two convolutions, each with its ReLU: nothing is rectified behind the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolved(channels, channels)
        self.conv2 = Convolved(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class ResNet9(nn.Module):
    """Images (N, in_channels, H, W), at least 8x8, to logits (N, num_classes).

    Four convolutions of `width`, 2, 4 and 8 times `width` channels, the last three each halving the resolution by
    max-pooling behind it; a residual unit at the first and the last of those resolutions; global max-pooling; logits
    times 0.125. Page's network has a width of 64.
    """

    def __init__(self, width: int = 64, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Convolved(width, 2 * width), nn.MaxPool2d(2), Residual(2 * width))
        self.layer2 = nn.Sequential(Convolved(2 * width, 4 * width), nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(Convolved(4 * width, 8 * width), nn.MaxPool2d(2), Residual(8 * width))
        self.fc = nn.Linear(8 * width, num_classes, bias=False)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(F.max_pool2d(x, x.shape[-2:]), 1)) * _LOGIT_SCALE
