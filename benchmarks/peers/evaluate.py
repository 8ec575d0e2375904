"""Evaluation in plain torchvision, as people write it: ImageFolder, DataLoader, eval mode, no gradients; eager, fp32.

    python benchmarks/peers/evaluate.py resnet50 FOLDER WEIGHTS.pth --resize 256 --crop 224 --batch-size 32 --workers 2

"resnet50" is torchvision's, any of whose networks will do; "resnet20" CIFAR's, as cifar.py beside this file has it.
Prints one line of JSON.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
import torchvision
from cifar import BasicBlock, ResNet20
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms


class PaddedBehind(BasicBlock):
    """Its zero channels come behind the others, as in the network whose weights it gets; cifar.py has half before."""

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2 * self.pad)) if self.changes else x


def network(name: str, classes: int) -> nn.Module:
    """The network, its weights yet to come."""
    if name != "resnet20":
        return torchvision.models.get_model(name, num_classes=classes)
    model = ResNet20(classes)
    convolutions = [block.conv1 for block in model.layers]
    blocks = (PaddedBehind(conv.in_channels, conv.out_channels, conv.stride[0]) for conv in convolutions)
    model.layers = nn.Sequential(*blocks)
    return model


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Mean cross-entropy, and per cent of the images that are classified right."""
    model.eval()
    loss, correct = 0.0, 0
    for images, targets in loader:
        outputs = model(images)
        loss += F.cross_entropy(outputs, targets).item() * len(images)
        correct += (outputs.argmax(1) == targets).sum().item()
    return loss / len(loader.dataset), 100 * correct / len(loader.dataset)


def main() -> None:
    """Evaluate, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("folder", help="with a folder of images for each class")
    parser.add_argument("weights", help="a state dict")
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    view = [transforms.Resize(options.resize), transforms.CenterCrop(options.crop)]
    values = [transforms.ToTensor(), transforms.Normalize(options.mean, options.std)]
    dataset = torchvision.datasets.ImageFolder(options.folder, transforms.Compose([*view, *values]))
    loader = DataLoader(dataset, options.batch_size, num_workers=options.workers)
    model = network(options.network, len(dataset.classes))
    model.load_state_dict(torch.load(options.weights, weights_only=True))
    seconds, loss, top1 = [], 0.0, 0.0
    for _ in range(options.epochs):
        start = time.perf_counter()
        loss, top1 = evaluate(model, loader)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds_per_epoch": seconds, "images": len(dataset), "loss": loss, "top1": top1}))


if __name__ == "__main__":
    main()
