"""What reliability costs: training with checkpoints and in deterministic mode, against training without.

    python benchmarks/reliability.py photos/ -m resnet50 --images 3200 -b 64 --every 10 --rounds 5 -o result.json

The arms take turns in one process, as often as there are rounds; a ratio is the median over rounds of an arm's time
over that of the plain arm in the same round. Times are of training epochs (steps and the wait for data, no evaluation)
as `metrics.jsonl` has them, without the first epoch of each run. Beside it: the milliseconds for which one checkpoint
holds the training up, and those that writing it takes in all.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import residuum.training.checkpoints as checkpoints
from residuum.data.sources import DataSet, open_data
from residuum.data.splits import SubSplit
from residuum.hardware import choose_device, describe_hardware, versions
from residuum.training.train import train

NEVER = "1000000 minutes"


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


def first_images(dataset: DataSet, count: int) -> DataSet:
    """At most `count` images of every split, evenly spaced so that all classes stay."""
    splits = {}
    for name, split in dataset.splits.items():
        kept = np.arange(min(count, len(split))) * len(split) // min(count, len(split))
        splits[name] = SubSplit(split, kept)
    return replace(dataset, splits=splits)


def seconds_of_epochs(dataset: DataSet, model: str, settings: list[str]) -> float:
    """The time of a run's epochs after the first, in seconds; nothing of the run is kept."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(dataset, model=model, out=Path(folder) / "run", overrides=settings)
    return sum(record["seconds"] for record in result.metrics[1:])


def main() -> None:
    """Measure, print the result as JSON, and write it where `-o` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-m", "--model", default="resnet20")
    parser.add_argument("-b", "--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=6400, help="how many training images an epoch has")
    parser.add_argument("--size", type=int, help="input side in pixels")
    parser.add_argument("--every", type=int, default=10, help="updates from checkpoint to checkpoint in that arm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()

    dataset = first_images(open_data(options.data), options.images)
    common = ["epochs=3", "evaluate_every=3", f"batch_size={options.batch_size}", f"device={options.device}"]
    common += [f"data.size={options.size}"] if options.size else []
    arms = {
        "plain": [f"checkpoint_every={NEVER}"],
        "checkpoints": [f"checkpoint_every={options.every} steps"],
        "deterministic": [f"checkpoint_every={NEVER}", "deterministic=true"],
    }
    stall = Stopwatch(checkpoints.CheckpointWriter, "write")
    writing = Stopwatch(checkpoints, "_write")
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(options.rounds):
        for arm, settings in arms.items():
            times[arm].append(seconds_of_epochs(dataset, options.model, common + settings))
    ratios = {
        arm: [one / plain for one, plain in zip(times[arm], times["plain"], strict=True)]
        for arm in arms
        if arm != "plain"
    }
    device = choose_device(options.device)
    result = {
        "command": {name: str(value) for name, value in vars(options).items() if name != "out"},
        "versions": versions(),
        "hardware": describe_hardware(device),
        "seconds": times,
        "time_over_plain": {
            arm: {"median": statistics.median(some), "least": min(some), "most": max(some)}
            for arm, some in ratios.items()
        },
        "checkpoint_ms": {"training_waits": stall.median_ms, "writing_takes": writing.median_ms},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    torch.backends.cudnn.benchmark = False
    main()
