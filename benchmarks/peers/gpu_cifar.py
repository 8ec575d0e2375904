"""The peers of small nets on one GPU: the published ResNet-20 script, and the ResNet-9 of DAWNBench.

The first is peers/cifar.py with what such scripts add for a GPU: `.to(device)`, pinned memory, `.item()` at each step.
The second is Page 2018, "How to train your ResNet": 24 epochs to 94 % on CIFAR-10; here on the device whole, in bf16.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from peers.cifar import MEAN, STD, TRAIN, ResNet20
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Photographs(Dataset):
    """torchvision.datasets.CIFAR10 on arrays that are there: a PIL image made for each use."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.images, self.labels = images, labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return TRAIN(Image.fromarray(self.images[index])), self.labels[index]


class PublishedScript:
    """The network, its optimiser, and the loader with so many processes, which stay."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], workers: int, batch: int, device: torch.device
    ) -> None:
        self.device, self.images = device, len(images) // batch * batch
        self.loader = DataLoader(
            Photographs(images, labels),
            batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )
        self.model = ResNet20().to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def images_per_second(self) -> float:
        """Train on all the images once."""
        self.model.train()
        start, total = time.perf_counter(), 0.0
        for images, targets in self.loader:
            images, targets = images.to(self.device), targets.to(self.device)
            loss = F.cross_entropy(self.model(images), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(images)
        return self.images / (time.perf_counter() - start)


class ConvBn(nn.Sequential):
    """A 3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """x plus two convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBn(channels, channels), ConvBn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResNet9(nn.Module):
    """64, 128, 256 and 512 channels, residual units in the second and the last stage, logits divided by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvBn(3, 64),
            *(ConvBn(64, 128), nn.MaxPool2d(2), Residual(128)),
            *(ConvBn(128, 256), nn.MaxPool2d(2)),
            *(ConvBn(256, 512), nn.MaxPool2d(2), Residual(512)),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(512, 10, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return 0.125 * self.features(x)


def train_resnet9(
    images: NDArray[np.uint8], labels: NDArray[np.int64], epochs: int, batch: int, device: torch.device, seed: int
) -> nn.Module:
    """Nesterov at a triangle to 0.4 at epoch 5 and down to 0, decay 5e-4, batch 512; crops, flips, 8x8 cut out."""
    torch.manual_seed(seed)
    inputs, targets = normalised(images, device), torch.from_numpy(labels).to(device)
    padded = F.pad(inputs, (4, 4, 4, 4), mode="reflect")
    model = ResNet9().to(device, memory_format=torch.channels_last)
    steps = epochs * (len(images) // batch)
    knots = [0.0, 5 / 24 * steps, float(steps)]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.4, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=device.type == "cuda"
    )
    model.train()
    step = 0
    for _ in range(epochs):
        for chosen in _batches(len(images), batch, device):
            optimizer.param_groups[0]["lr"] = max(float(np.interp(step + 1, knots, [0.0, 0.4, 0.0])), 1e-6)
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(_augmented(padded, chosen))
            loss = F.cross_entropy(logits.float(), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return model


def normalised(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(N, 32, 32, 3) uint8 to (N, 3, 32, 32) float32 on the device."""
    mean, std = (torch.tensor(values, device=device) * 255 for values in (MEAN, STD))
    return ((torch.from_numpy(images).to(device).float() - mean) / std).permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(model: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> float:
    """Per cent of the images that are classified right."""
    model.eval()
    inputs, targets = normalised(images, device), torch.from_numpy(labels).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        answers = torch.cat([model(part).argmax(1) for part in inputs.split(1000)])
    return 100 * float((answers == targets).float().mean())


def _batches(count: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    order = torch.randperm(count, device=device)
    for start in range(0, count - batch + 1, batch):
        yield order[start : start + batch]


def _augmented(padded: Tensor, chosen: Tensor) -> Tensor:
    """Crops of 32 out of 40, mirrored or not, with a square of 8x8 zeros; each image its own."""
    count, device = len(chosen), padded.device
    across = torch.arange(32, device=device)
    top, left = (torch.randint(0, 9, (count, 1), device=device) for _ in range(2))
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, across, 31 - across) + left
    rows = across + top
    images = padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    y, x = (torch.randint(0, 25, (count, 1), device=device) for _ in range(2))
    hidden = ((across >= y) & (across < y + 8))[:, :, None] & ((across >= x) & (across < x + 8))[:, None, :]
    return images.masked_fill(hidden[..., None], 0.0).permute(0, 3, 1, 2)  # channels last
