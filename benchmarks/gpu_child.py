"""A training run in a process of its own, for the rows of the GPU benchmark that need one.

    python benchmarks/gpu_child.py train CIFAR.npz -m resnet20 --set iterations=8000 --waits
    python benchmarks/gpu_child.py turns CIFAR.npz -m resnet20 --rounds 5 --arm "" --arm deterministic=true

`train` trains once, with `--waits` after a word on stdin, and prints a line of JSON; with `--out` it goes on with what
is there, and ends with code 143 after SIGTERM, everything saved. `turns` lets arms (overrides, separated by blanks)
take turns and prints the seconds of their epochs after the first.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_data import read_arrays
from gpu_setting import AT_THE_END
from measuring import in_turn

from residuum.data.sources import DataSet
from residuum.training.interruption import Interrupted
from residuum.training.train import TrainResult, train


def run(options: argparse.Namespace, dataset: DataSet, overrides: list[str], out: Path | None = None) -> TrainResult:
    """One run of the recipe; without `out` nothing of it is kept."""
    chosen = [AT_THE_END, *options.set, *overrides]
    if out is not None:
        return train(dataset, recipe=options.recipe, model=options.model, out=out, resume="auto", overrides=chosen)
    with tempfile.TemporaryDirectory() as folder:
        return run(options, dataset, overrides, Path(folder) / "run")


def train_once(options: argparse.Namespace, dataset: DataSet) -> dict[str, Any]:
    """The moments (seconds of the system's clock) a run began and ended, its updates and its test accuracy."""
    if options.waits:
        run(options, dataset, [f"iterations={options.warm_up}"])
        print("ready", flush=True)
        sys.stdin.readline()
    begin = time.time()
    result = run(options, dataset, [], options.out)
    return {
        "begin": begin,
        "end": time.time(),
        "updates": result.metrics[-1]["step"],
        "images": sum(record["images"] for record in result.metrics),
        "accuracy": result.evaluations["test"].score,
    }


def take_turns(options: argparse.Namespace, dataset: DataSet) -> dict[str, list[float]]:
    """By arm, round by round: the seconds of the epochs after the first. Each arm runs once before the rounds."""
    figures: dict[str, list[float]] = {arm: [] for arm in options.arm}
    for arm in options.arm:
        run(options, dataset, arm.split())
    for number in range(options.rounds):
        for arm in in_turn(options.arm, number):
            records = run(options, dataset, arm.split()).metrics[1:]
            figures[arm].append(sum(record["seconds"] for record in records))
    return figures


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "turns"])
    parser.add_argument("data")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-r", "--recipe", default="he2015-cifar")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--waits", action="store_true")
    parser.add_argument("--warm-up", type=int, default=400)
    parser.add_argument("--arm", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dataset = read_arrays(options.data)
    try:
        print(json.dumps((train_once if options.what == "train" else take_turns)(options, dataset)), flush=True)
    except Interrupted as stop:
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
