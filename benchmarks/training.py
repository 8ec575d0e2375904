"""Training, loader included, against the script that people use today.

    python benchmarks/training.py cifar cifar10 -o benchmarks/results/training-cifar.json
    python benchmarks/training.py fashion-mnist fashion-mnist -o benchmarks/results/training-fashion-mnist.json
    python benchmarks/training.py imagenet photos/ -o benchmarks/results/training-imagenet.json

Three arms: the script in peers/, with as many loader processes as serve it best (tried first); residuum as it is by
itself; and residuum kept to fp32. Times are of epochs after the first, without evaluation. residuum's runs also write
the checkpoint that follows each epoch; the scripts write none.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measuring import (
    Arm,
    Figures,
    Record,
    add_common_options,
    best_workers,
    medians,
    printed_json,
    speeds,
    with_rate,
)
from own_arms import training
from samples import class_folder, open_sample, write_arrays

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Work:
    """What both sides train. channels: of the arrays that the peer reads; None: it reads the image files."""

    peer: str
    recipe: str
    model: str
    images: int
    epochs: int
    batch_size: int
    channels: int | None
    changes: tuple[str, ...] = ()


WORK = {
    "cifar": Work("cifar.py", "he2015-cifar", "resnet20", 5120, 3, 128, 3),
    "fashion-mnist": Work("fashion_mnist.py", "d2l-fashion-mnist", "resnet18", 1536, 2, 256, 1),
    "imagenet": Work(
        "imagenet.py",
        "he2015-imagenet",
        "resnet50_v1_5",
        128,
        2,
        32,
        None,
        (
            "data.augmentation.shorter_side=none",
            "data.augmentation.random_resized_crop=0.08,1",
            "data.augmentation.lighting=0",
            "data.normalisation=imagenet",
            "schedule.name=constant",
            "data.loader=file",
        ),
    ),
}


def peer_arm(work: Work, source: Path, images: int, epochs: int, workers: int) -> Figures:
    """The peer's script on so many images of its source."""
    arguments = [str(source), "--images", str(images), "--epochs", str(epochs), "--workers", str(workers)]
    return with_rate(printed_json([sys.executable, str(PEERS / work.peer), *arguments]))


def own_arm(work: Work, data: str, images: int, epochs: int, precision: str) -> Figures:
    """residuum with the peer's settings."""
    changes = [f"batch_size={work.batch_size}", f"epochs={epochs}", f"evaluate_every={epochs}"]
    changes += [*work.changes, f"precision={precision}"]
    flags = [part for change in changes for part in ("--set", change)]
    return training([data, "-n", str(images), "-R", work.recipe, "-m", work.model, *flags])


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=WORK)
    parser.add_argument("data", help="a data spec; for imagenet a folder of photographs, a folder for each class")
    parser.add_argument("-n", "--images", type=int, help="in an epoch")
    parser.add_argument("-e", "--epochs", type=int, help="in a round, the first of which warms up")
    add_common_options(parser)
    options = parser.parse_args()
    work = WORK[options.name]
    options.images = options.images or work.images
    options.epochs = options.epochs or work.epochs

    record = Record(options)
    with tempfile.TemporaryDirectory() as folder:
        source = class_folder(options.data)
        if work.channels:
            source = Path(folder)
            write_arrays(open_sample(options.data, options.images), source, work.channels)
        peer = partial(peer_arm, work, source)
        counts = sorted({*range((os.cpu_count() or 1) + 1), 4})
        tried = record.once(
            "peer_workers",
            lambda: best_workers(lambda count: peer(options.images // 2, 2, count)["images_per_second"], counts),
        )
        arms: dict[str, Arm] = {
            "peer": lambda: peer(options.images, options.epochs, tried["best"]),
            "residuum": lambda: own_arm(work, options.data, options.images, options.epochs, "auto"),
            "residuum in fp32": lambda: own_arm(work, options.data, options.images, options.epochs, "fp32"),
        }
        record.run(arms)
    record.conclude(
        images_per_second=medians(record.rounds, "images_per_second"),
        times_as_fast_as_peer=speeds(record.rounds, "peer", "images_per_second"),
    )


if __name__ == "__main__":
    main()
