"""residuum's side of the benchmarks, in a process of its own. Each command prints one line of JSON.

python benchmarks/own_arms.py train cifar10 -m resnet20 -R he2015-cifar -n 5120 --set epochs=3 --folder runs/one
python benchmarks/own_arms.py load photos/ -n 1000 --kind file --workers 2
python benchmarks/own_arms.py compare photos/ -n 256
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figures, printed_json, with_rate
from PIL import Image, ImageOps
from samples import HELD_OUT, open_sample

import residuum.training.checkpoints as checkpoints
from residuum.data.augmentations import Augmentation
from residuum.data.crops import RESIZED_CROP_NUMBERS, resized_crop_boxes
from residuum.data.loaders import Loader, train_loader
from residuum.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from residuum.data.sources import DataSet
from residuum.data.workers import LoaderSettings
from residuum.distributed import world_from_environment
from residuum.files import read_json
from residuum.hardware import keep_freed_memory
from residuum.randomness import uniform
from residuum.training.train import train

SIZE, SCALE = 224, (0.08, 1.0)
PHOTOGRAPHS = Augmentation(random_resized_crop=SCALE, flip=True)
CIFAR = Augmentation(pad_and_crop=4, flip=True)


def training(arguments: Sequence[str], launcher: Sequence[str] = (), **environment: str) -> Figures:
    """`own_arms.py train` with these arguments, and its rate; nothing of the run is kept."""
    with tempfile.TemporaryDirectory() as folder:
        return with_rate(printed_json(training_command(arguments, folder, launcher), **environment))


def training_command(arguments: Sequence[str], folder: str, launcher: Sequence[str] = ()) -> list[str]:
    """The command that trains in a new folder below `folder`. launcher: torchrun and what it is told."""
    return [sys.executable, *launcher, __file__, "train", *arguments, "--folder", f"{folder}/run"]


class Stopwatch:
    """Times every call of a function it is put in the place of."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds: list[float] = []
        true = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = true(*arguments, **named)
            self.seconds.append(time.perf_counter() - start)
            return result

        setattr(owner, name, timed)

    @property
    def median_ms(self) -> float:
        return 1000 * statistics.median(self.seconds)


def run_training(options: argparse.Namespace) -> Figures:
    """Images and seconds of each epoch, as `metrics.jsonl` has them: steps and the wait for data, no evaluation.

    With it the milliseconds for which a checkpoint holds the training up, and those that writing it takes.
    """
    stall = Stopwatch(checkpoints.CheckpointWriter, "write")
    writing = Stopwatch(checkpoints, "_write")
    result = train(
        open_sample(options.data, options.images, options.held_out),
        recipe=options.recipe,
        model=options.model,
        out=options.folder,
        overrides=options.changes,
    )
    return {
        "seconds_per_epoch": [epoch["seconds"] for epoch in result.metrics],
        "images": result.metrics[0]["images"],
        "train_loss": [epoch["train_loss"] for epoch in result.metrics],
        "test_accuracy": next(reversed(result.evaluations.values())).score,
        "precision": read_json(result.folder / "run.json")["hardware"]["precision"],
        "checkpoint_ms": {"training_waits": stall.median_ms, "writing_takes": writing.median_ms}
        if world_from_environment().is_main
        else {},
    }


def run_loading(options: argparse.Namespace) -> Figures:
    """Images and seconds of each pass over the data, normalised float batches taken and let go."""
    keep_freed_memory()  # as training does
    photographs = options.kind == "file"
    preprocessing = Preprocessing(3, SIZE if photographs else 32, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    augmentation = PHOTOGRAPHS if photographs else CIFAR
    dataset = open_sample(options.data, options.images)
    loader = _loader(dataset, preprocessing, augmentation, options)
    seconds, images = [], 0
    for epoch in range(options.epochs):
        start = time.perf_counter()
        images = sum(len(batch.images) for batch in loader.epoch(epoch))
        seconds.append(time.perf_counter() - start)
    return {"seconds_per_epoch": seconds, "images": images}


def _loader(
    dataset: DataSet, preprocessing: Preprocessing, augmentation: Augmentation, options: argparse.Namespace
) -> Loader:
    settings = LoaderSettings(workers=options.workers, kind=options.kind)
    return train_loader(
        dataset.train,
        preprocessing,
        augmentation,
        classes=len(dataset.classes),
        batch_size=options.batch_size,
        settings=settings,
    )


def run_comparison(options: argparse.Namespace) -> Figures:
    """Grey levels by which the file loader's crops differ from Pillow's crop and resize of the same boxes.

    The boxes are those that the loader draws for (seed, epoch, index); the images are decoded by Pillow anew.
    """
    dataset = open_sample(options.data, options.images)
    unit = Preprocessing(3, SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)
    loader = _loader(dataset, unit, Augmentation(random_resized_crop=SCALE), options)
    largest, further, count = 0, 0, 0
    for batch in loader.epoch(0):
        theirs = np.stack([_pillow_crop(dataset, int(index)) for index in batch.indices])
        ours = np.rint(batch.images.numpy().transpose(0, 2, 3, 1) * 255).astype(int)
        difference = np.abs(ours - theirs.astype(int))
        largest = max(largest, int(difference.max()))
        further += int((difference > 1).sum())
        count += difference.size
    return {"largest_difference": largest, "share_beyond_one": further / count, "crops": count // (3 * SIZE**2)}


def _pillow_crop(dataset: DataSet, index: int) -> np.ndarray:
    split = dataset.train
    with tempfile.TemporaryFile() as file:
        file.write(split.content(index))
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    numbers = uniform(0, "view", 0, np.array([index]), RESIZED_CROP_NUMBERS)
    sides = np.array([image.height]), np.array([image.width])
    top, left, height, width = map(int, resized_crop_boxes(*sides, numbers, SCALE)[0])
    crop = image.crop((left, top, left + width, top + height))
    return np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def main() -> None:
    """Do what the command line says; of several processes the main one prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "load", "compare"))
    parser.add_argument("data")
    parser.add_argument("-n", "--images", type=int)
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="images to evaluate on")
    parser.add_argument("-m", "--model")
    parser.add_argument("-R", "--recipe")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--kind", choices=("file", "memory"), default="file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    figures = {"train": run_training, "load": run_loading, "compare": run_comparison}[options.what](options)
    if world_from_environment().is_main:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
