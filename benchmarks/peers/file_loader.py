"""What torchvision's transforms in a DataLoader deliver: no network, only batches, as training gets them.

    python benchmarks/peers/file_loader.py photographs FOLDER --workers 2
    python benchmarks/peers/file_loader.py arrays ARRAYS --workers 2

"photographs": those of imagenet.py beside this file; "arrays": CIFAR's as cifar.py has them. Prints one line of JSON.
"""

import argparse
import json
import time

from cifar import TRAIN, Cifar
from imagenet import image_folder
from torch.utils.data import DataLoader


def main() -> None:
    """Go through the data, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("photographs", "arrays"))
    parser.add_argument("folder")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()

    arrays = options.kind == "arrays"
    dataset = (
        Cifar(options.folder, "train", TRAIN, options.images)
        if arrays
        else image_folder(options.folder, options.images)
    )
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    loader = DataLoader(dataset, options.batch_size, shuffle=True, **workers)
    seconds, images = [], 0
    for _ in range(options.epochs):
        start = time.perf_counter()
        images = sum(len(batch) for batch, _ in loader)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds_per_epoch": seconds, "images": images}))


if __name__ == "__main__":
    main()
