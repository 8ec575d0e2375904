"""ResNet-20 on CIFAR-10 in plain PyTorch and torchvision, as the scripts that people publish and copy have it.

    python benchmarks/peers/cifar.py ARRAYS --epochs 164 --workers 2 --until 90

He et al. 2015, section 4.2: option A shortcuts, SGD at 0.1 with momentum 0.9 and weight decay 1e-4, batch 128, the rate
divided by 10 after half and three quarters of the epochs. The data set is torchvision.datasets.CIFAR10's: one uint8
array in memory, a PIL image made for each use. fp32, default memory format; the loader's processes stay from epoch to
epoch. Prints one line of JSON.
"""

import argparse
import json
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NORMALIZE = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
TRAIN = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *NORMALIZE])
TEST = transforms.Compose(NORMALIZE)


class Cifar(Dataset):
    """torchvision.datasets.CIFAR10 with its arrays read from .npy files; all of them, or `images` evenly spaced."""

    def __init__(self, folder: str, split: str, transform: transforms.Compose, images: int | None = None) -> None:
        data, targets = (np.load(f"{folder}/{split}_{kind}.npy") for kind in ("images", "labels"))
        kept = np.arange(images or len(data)) * len(data) // (images or len(data))
        self.data, self.targets = data[kept], targets[kept].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, target = self.data[index], self.targets[index]
        return self.transform(Image.fromarray(image)), target


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that skips pixels and adds zero channels (option A)."""

    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.changes = stride != 1 or in_planes != planes
        self.pad = (planes - in_planes) // 2

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.changes else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, in_planes = [], 16
        for planes, stride in ((16, 1), (32, 2), (64, 2)):
            for stride_of_block in (stride, 1, 1):
                blocks.append(BasicBlock(in_planes, planes, stride_of_block))
                in_planes = planes
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layers(out).mean((2, 3))
        return self.linear(out)


def train_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """One epoch; returns the mean loss."""
    model.train()
    total = 0.0
    for images, targets in loader:
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
    return total / len(loader.dataset)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Per cent of the loader's images that are classified right."""
    model.eval()
    correct = sum((model(images).argmax(1) == targets).sum().item() for images, targets in loader)
    return 100 * correct / len(loader.dataset)


def main() -> None:
    """Train, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arrays", help="folder with train_images.npy, train_labels.npy and the same of test")
    parser.add_argument("--images", type=int, help="train on so many of the images only")
    parser.add_argument("--epochs", type=int, default=164)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", type=float, metavar="PERCENT", help="evaluate after each epoch; stop when reached")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    train_set, test_set = Cifar(options.arrays, "train", TRAIN, options.images), Cifar(options.arrays, "test", TEST)
    train_loader = DataLoader(train_set, options.batch_size, shuffle=True, **workers)
    test_loader = DataLoader(test_set, options.batch_size, **workers)
    model = ResNet20()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    drops = [max(1, options.epochs // 2), max(1, options.epochs * 3 // 4)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops)

    seconds, accuracies = [], []
    begin = time.perf_counter()
    for _ in range(options.epochs):
        start = time.perf_counter()
        train_epoch(model, train_loader, optimizer)
        schedule.step()
        seconds.append(time.perf_counter() - start)
        if options.until is not None:
            accuracies.append(accuracy(model, test_loader))
            if accuracies[-1] >= options.until:
                break
    result = {"seconds_per_epoch": seconds, "images": len(train_loader.dataset)}
    if options.until is not None:
        result["test_accuracy"] = accuracies
        result["reached"] = accuracies[-1] >= options.until
        result["seconds_with_evaluation"] = time.perf_counter() - begin
        result["seconds_without_evaluation"] = sum(seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
