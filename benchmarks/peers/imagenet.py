"""ResNet-50 on photographs in the style of torchvision's and PyTorch's reference scripts.

    python benchmarks/peers/imagenet.py FOLDER --images 128 --epochs 2 --workers 2

torchvision's network, ImageFolder, random resized crops of 224, flips, SGD at 0.1 with momentum 0.9 and weight decay
1e-4, batch 32, fp32. Prints one line of JSON.
"""

import argparse
import json
import time

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

TRANSFORM = transforms.Compose(
    [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def image_folder(folder: str, images: int | None) -> Dataset:
    """The folder's images, or so many of them, evenly spaced."""
    dataset = torchvision.datasets.ImageFolder(folder, TRANSFORM)
    if images is None or images >= len(dataset):
        return dataset
    return Subset(dataset, [i * len(dataset) // images for i in range(images)])


def main() -> None:
    """Train, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="with a folder of images for each class")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    torch.manual_seed(0)
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    loader = DataLoader(image_folder(options.folder, options.images), batch_size=32, shuffle=True, **workers)
    model = torchvision.models.resnet50(num_classes=1000)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    seconds = []
    for _ in range(options.epochs):
        start = time.perf_counter()
        model.train()
        for images, target in loader:
            loss = criterion(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds_per_epoch": seconds, "images": len(loader.dataset)}))


if __name__ == "__main__":
    main()
