"""ResNet-18 on Fashion-MNIST as "Dive into Deep Learning" (section 8.6, PyTorch) trains it.

    python benchmarks/peers/fashion_mnist.py ARRAYS --epochs 10 --workers 4

Images enlarged to 96x96 by torchvision's Resize, batch 256, plain SGD at 0.05, Xavier initialisation, fp32. The data
set is torchvision.datasets.FashionMNIST's: one uint8 array in memory, a PIL image made for each use. The sums that the
book takes for its plot are left out. Prints one line of JSON.
"""

import argparse
import json
import time

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TRANSFORM = transforms.Compose([transforms.Resize(96), transforms.ToTensor()])


class FashionMnist(Dataset):
    """torchvision.datasets.FashionMNIST with its arrays read from .npy files; all, or `images` evenly spaced."""

    def __init__(self, folder: str, split: str, images: int | None = None) -> None:
        data, targets = (np.load(f"{folder}/{split}_{kind}.npy") for kind in ("images", "labels"))
        kept = np.arange(images or len(data)) * len(data) // (images or len(data))
        self.data, self.targets = data[kept], targets[kept].tolist()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return TRANSFORM(Image.fromarray(self.data[index])), self.targets[index]


class Residual(nn.Module):
    """The book's residual block."""

    def __init__(self, input_channels: int, num_channels: int, use_1x1conv: bool = False, strides: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_channels, num_channels, kernel_size=3, padding=1, stride=strides)
        self.conv2 = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2d(input_channels, num_channels, kernel_size=1, stride=strides) if use_1x1conv else None
        self.bn1 = nn.BatchNorm2d(num_channels)
        self.bn2 = nn.BatchNorm2d(num_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.conv3:
            x = self.conv3(x)
        y += x
        return F.relu(y)


def resnet_block(input_channels: int, num_channels: int, num_residuals: int, first_block: bool = False) -> list:
    """The book's module of residual blocks, which halves the resolution unless it is the first."""
    block = []
    for i in range(num_residuals):
        if i == 0 and not first_block:
            block.append(Residual(input_channels, num_channels, use_1x1conv=True, strides=2))
        else:
            block.append(Residual(num_channels, num_channels))
    return block


def resnet18() -> nn.Sequential:
    """The book's ResNet-18 for grey images and ten classes."""
    b1 = nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )
    b2 = nn.Sequential(*resnet_block(64, 64, 2, first_block=True))
    b3 = nn.Sequential(*resnet_block(64, 128, 2))
    b4 = nn.Sequential(*resnet_block(128, 256, 2))
    b5 = nn.Sequential(*resnet_block(256, 512, 2))
    return nn.Sequential(b1, b2, b3, b4, b5, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(512, 10))


def init_weights(module: nn.Module) -> None:
    """Xavier, as in the book."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)


def main() -> None:
    """Train, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arrays", help="folder with train_images.npy and train_labels.npy")
    parser.add_argument("--images", type=int, help="train on so many of the images only")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()

    torch.manual_seed(0)
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    train_iter = DataLoader(FashionMnist(options.arrays, "train", options.images), 256, shuffle=True, **workers)
    net = resnet18()
    net.apply(init_weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    loss = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(options.epochs):
        start = time.perf_counter()
        net.train()
        for x, y in train_iter:
            optimizer.zero_grad()
            l = loss(net(x), y)  # noqa: E741 the book's name
            l.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds_per_epoch": seconds, "images": len(train_iter.dataset)}))


if __name__ == "__main__":
    main()
