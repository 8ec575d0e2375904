"""Networks to diagnose, healthy and with a fault planted in them; used by diagnosis.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from residuum.models.catalogue import create_model

Build = Callable[[], nn.Module]
Change = Callable[[nn.Module], None]
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A network to diagnose. fault: what was planted, "" in a healthy one; expected: the verdicts that are right.

    size, images: of the batch; updates, rate, momentum: how it is trained beforehand; change: what is done to it after
    that; lr: the learning rate that the diagnosis is told.
    """

    name: str
    build: Build
    fault: str = ""
    expected: tuple[str, ...] = ("healthy",)
    size: int = 32
    images: int = 32
    updates: int = 0
    rate: float = 0.05
    change: Change | None = None
    lr: float | None = None


def plain(depth: int, width: int, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> nn.Module:
    """3x3 convolutions one after the other, of two resolutions, then the mean over positions and a linear layer."""
    layers: list[nn.Module] = []
    for index in range(depth):
        stride = 2 if index in (0, depth // 2) else 1
        layers.append(nn.Conv2d(width if index else 3, width, 3, stride, padding=1))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(activation())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


class Sum(nn.Module):
    """y = x + F(x), F two convolutions with a ReLU before each, as a stranger would write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(torch.relu(self.first(torch.relu(x))))
        out += x
        return out


def sums(units: int, width: int) -> nn.Module:
    """Residual sums without any normalisation."""
    body = [Sum(width) for _ in range(units)]
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, padding=1), *body, nn.ReLU(), *ends)


def perceptron(depth: int, width: int, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> nn.Module:
    """Linear layers on pixels."""
    layers: list[nn.Module] = [nn.Flatten(), nn.LazyLinear(width), activation()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), *([nn.LayerNorm(width)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


class Tokens(nn.Module):
    """PyTorch's own transformer encoder on 8x8 patches."""

    def __init__(self, layers: int, width: int, norm_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(dim=1))


class Growing(nn.Module):
    """Densely connected layers: each reads all outputs before it."""

    def __init__(self, layers: int, growth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, growth, 3, 2, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(growth * n), nn.ReLU(True), nn.Conv2d(growth * n, growth, 3, padding=1, bias=False)
            )
            for n in range(1, layers + 1)
        )
        self.head = nn.Linear(growth * (layers + 1), CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return self.head(x.mean(dim=(2, 3)))


class Rows(nn.Module):
    """A recurrent network that reads an image row by row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.memory = nn.LSTM(96, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        states, _ = self.memory(images.transpose(1, 2).flatten(2))
        return self.head(states[:, -1])


def built(build: Build, *changes: Change) -> nn.Module:
    """A network, changed."""
    network = build()
    if any(isinstance(module, nn.LazyLinear) for module in network.modules()):
        network(torch.zeros(2, 3, 32, 32))
    for change in changes:
        change(network)
    return network


def named(name: str, **options: object) -> Build:
    """A network of the catalogue or of a library."""
    return partial(create_model, name, num_classes=CLASSES, **options)  # type: ignore[arg-type]


def weighted(network: nn.Module) -> Iterator[nn.Module]:
    """Convolutions and linear layers."""
    return (module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))


def he(network: nn.Module, gain: float = 1.0) -> None:
    """He initialisation, times a gain, without biases."""
    for module in weighted(network):
        nn.init.kaiming_normal_(module.weight)
        with torch.no_grad():
            module.weight.mul_(gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def gaussian(network: nn.Module, std: float = 0.01) -> None:
    """Every weight from one normal distribution, no biases."""
    for module in weighted(network):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def biased(network: nn.Module, value: float, start: int, stop: int | None) -> None:
    """The biases of some convolutions and linear layers set to a value."""
    for module in [*weighted(network)][start:stop]:
        assert module.bias is not None
        nn.init.constant_(module.bias, value)


def shifted(network: nn.Module, value: float) -> None:
    """The shift of every batch normalisation set to a value."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, value)


def with_eps(network: nn.Module, eps: float) -> None:
    """Another eps in every batch normalisation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


def momentum(network: nn.Module, value: float) -> None:
    """Another momentum in every batch normalisation; 0 keeps the statistics as they are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = value


def forgotten(network: nn.Module) -> None:
    """Running statistics as before training, though batches were counted."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()  # type: ignore[union-attr]
            module.running_var.fill_(1.0)  # type: ignore[union-attr]
