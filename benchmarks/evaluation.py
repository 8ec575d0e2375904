"""Evaluation, reading the images included, against the loop that people write in torchvision.

    python benchmarks/evaluation.py cifar cifar10 -o benchmarks/results/evaluation-cifar.json
    python benchmarks/evaluation.py photos photos -o benchmarks/results/evaluation-photos.json

Three arms: the loop in peers/evaluate.py, with as many loader processes as serve it best (tried first); residuum as
it is by itself; and residuum kept to fp32. Both sides read the same files and have the same weights, those of a
network that was not trained; in fp32 their mean losses must agree. For photographs also the protocols of more views,
each on a tenth of the images, of which there is no peer. The first pass over the images warms up.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import Arm, Figures, Record, add_common_options, best_workers, medians, printed_json, speeds, with_rate
from torch.optim.swa_utils import update_bn

from residuum.pretrained import new_classifier
from residuum.state_dicts import StateDict
from residuum.weights import Classifier, save_model

HERE = Path(__file__).parent
PEER = HERE / "peers" / "evaluate.py"
OWN = HERE / "own_evaluation.py"
PATCHES = 8  # a side: photographs, too, have large areas of one colour
MOST_APART = 1e-3
"""Nats by which the mean losses of both sides may differ in fp32."""


@dataclass(frozen=True)
class Work:
    """What both sides evaluate. views: the further protocols that residuum is timed by."""

    model: str
    peer: str
    images: int
    batch_size: int
    views: tuple[str, ...] = ()


WORK = {
    "cifar": Work("resnet20", "resnet20", 10_000, 256),
    "photos": Work("torchvision/resnet50", "resnet50", 1_000, 32, ("10-crop", "multi-scale")),
}


@dataclass(frozen=True)
class Material:
    """The model for residuum, and its weights and preprocessing for the peer."""

    model: Path
    weights: Path
    preprocessing: tuple[str, ...]


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=WORK)
    parser.add_argument("data", help="a folder of images, a folder for each class, perhaps below test/ or train/")
    parser.add_argument("-n", "--images", type=int, help="to evaluate on (default: 10,000 of cifar, 1,000 photos)")
    parser.add_argument("-e", "--epochs", type=int, default=2, help="passes in a round, the first of which warms up")
    add_common_options(parser)
    options = parser.parse_args()
    work = WORK[options.name]
    options.images = options.images or work.images

    record = Record(options)
    with tempfile.TemporaryDirectory() as place:
        folder, source = Path(place), held_out_folder(Path(options.data))
        images = link_some(source, options.images, folder / "images")
        fewer = link_some(source, max(1, options.images // 10), folder / "fewer")
        material = prepare(work, sorted(part.name for part in images.iterdir()), folder)
        peer = partial(peer_arm, work, material, images)
        own = partial(own_arm, work, material, options.epochs)
        counts = sorted({*range((os.cpu_count() or 1) + 1), 4})
        tried = record.once(
            "peer_workers", lambda: best_workers(lambda count: peer(1, count)["images_per_second"], counts)
        )
        arms: dict[str, Arm] = {
            "peer": lambda: peer(options.epochs, tried["best"]),
            "residuum": lambda: own(images),
            "residuum in fp32": lambda: own(images, "--precision", "fp32"),
            **{f"residuum, {view}": partial(own, fewer, "--protocol", view) for view in work.views},
        }
        record.run(arms)
    record.conclude(
        images_per_second=medians(record.rounds, "images_per_second"),
        times_as_fast_as_peer=speeds(one_crop(record.rounds), "peer", "images_per_second"),
        losses_apart=agreed(record.rounds),
    )


def peer_arm(work: Work, material: Material, images: Path, epochs: int, workers: int) -> Figures:
    """The peer's loop over a folder."""
    command = [sys.executable, str(PEER), work.peer, str(images), str(material.weights), *material.preprocessing]
    sizes = ["--batch-size", str(work.batch_size), "--epochs", str(epochs), "--workers", str(workers)]
    return with_rate(printed_json([*command, *sizes]))


def own_arm(work: Work, material: Material, epochs: int, images: Path, *choices: str) -> Figures:
    """residuum's evaluation of a folder."""
    command = [sys.executable, str(OWN), str(material.model), str(images), *choices]
    return with_rate(printed_json([*command, "--batch-size", str(work.batch_size), "--epochs", str(epochs)]))


def prepare(work: Work, classes: Sequence[str], folder: Path) -> Material:
    """The same new network for both sides; patches of noise have set its normalisation, so that scores are small."""
    torch.manual_seed(0)
    classifier = new_classifier(work.model, classes)
    preprocessing = classifier.preprocessing
    size = preprocessing.size
    patches = F.interpolate(torch.randn(16, preprocessing.channels, PATCHES, PATCHES), size)
    update_bn([patches], classifier.network)
    save_model(folder / "model", classifier)
    torch.save(peer_state(classifier), folder / "weights.pth")
    sides = ("--resize", str(preprocessing.resized_side), "--crop", str(size))
    colours = ("--mean", *map(str, preprocessing.mean), "--std", *map(str, preprocessing.std))
    return Material(folder / "model", folder / "weights.pth", (*sides, *colours))


def peer_state(classifier: Classifier) -> StateDict:
    """The weights under the peer's names: torchvision's, or cifar.py's, where the blocks of all stages are one list."""
    state = dict(classifier.network.state_dict())
    if "/" in classifier.architecture:
        return state

    def renamed(name: str) -> str:
        blocks = re.sub(r"^layer(\d)\.(\d)", lambda found: f"layers.{3 * int(found[1]) - 3 + int(found[2])}", name)
        return re.sub("^fc", "linear", blocks)

    return {renamed(name): tensor for name, tensor in state.items()}


def held_out_folder(data: Path) -> Path:
    """Where the class folders are: those of the test images, where there are any."""
    return next((data / split for split in ("test", "val", "train") if (data / split).is_dir()), data)


def link_some(source: Path, count: int, target: Path) -> Path:
    """`target`, with links to at most `count` of the images in the class folders of `source`, evenly spaced.

    Raises SystemExit where there is none.
    """
    files = sorted(file for file in source.glob("*/*") if file.is_file() and file.name[0] != ".")
    if not files:
        raise SystemExit(f"{source.name} has no class folders with images")
    count = min(count, len(files))
    for number in range(count):
        file = files[number * len(files) // count]
        link = target / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return target


def one_crop(rounds: Sequence[dict[str, Figures]]) -> list[dict[str, Figures]]:
    """The rounds without the protocols of more views, which no peer stands beside."""
    return [{arm: figures for arm, figures in one.items() if "," not in arm} for one in rounds]


def agreed(rounds: Sequence[dict[str, Figures]]) -> float:
    """The nats by which the mean losses of both sides differ at most in fp32. Raises SystemExit for too many."""
    apart = max(abs(figures["peer"]["loss"] - figures["residuum in fp32"]["loss"]) for figures in rounds)
    if not apart < MOST_APART:  # nor where a loss is no number
        raise SystemExit(f"the losses of both sides differ by {apart}: they did not evaluate the same")
    return apart


if __name__ == "__main__":
    main()
