"""What reliability costs: training with checkpoints and in deterministic mode, against training without.

    python benchmarks/reliability.py photos/ -m resnet50 -n 3200 -b 64 --every 10 -o result.json

The arms take turns, each in a process of its own; a ratio is an arm's time over that of the plain arm in the same
round. Times are of training epochs (steps and the wait for data, no evaluation) as `metrics.jsonl` has them, without
the first epoch of each run. Beside it: the milliseconds for which one checkpoint holds the training up, and those that
writing it takes in all.
"""

import argparse
import statistics
from collections.abc import Sequence

from measuring import Arm, Figures, Record, add_common_options, band
from own_arms import training

NEVER = "1000000 minutes"
EPOCHS = 3


def main() -> None:
    """Measure, print the result as JSON, and write it where `-o` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-m", "--model", default="resnet20")
    parser.add_argument("-b", "--batch-size", type=int, default=128)
    parser.add_argument("-n", "--images", type=int, default=6400, help="how many training images an epoch has")
    parser.add_argument("--size", type=int, help="input side in pixels")
    parser.add_argument("--every", type=int, default=10, help="updates from checkpoint to checkpoint in that arm")
    parser.add_argument("--device", default="auto")
    add_common_options(parser)
    options = parser.parse_args()

    common = [f"epochs={EPOCHS}", f"evaluate_every={EPOCHS}", f"batch_size={options.batch_size}"]
    common += [f"device={options.device}", *([f"data.size={options.size}"] if options.size else [])]
    settings = {
        "plain": [f"checkpoint_every={NEVER}"],
        "checkpoints": [f"checkpoint_every={options.every} steps"],
        "deterministic": [f"checkpoint_every={NEVER}", "deterministic=true"],
    }
    record = Record(options, options.device)
    arms: dict[str, Arm] = {name: _arm(options, [*common, *changes]) for name, changes in settings.items()}
    record.run(arms)
    times = {name: [sum(figures[name]["seconds_per_epoch"][1:]) for figures in record.rounds] for name in arms}
    ratios = {
        name: band([one / plain for one, plain in zip(times[name], times["plain"], strict=True)])
        for name in ("checkpoints", "deterministic")
    }
    waits = [figures["checkpoints"]["checkpoint_ms"] for figures in record.rounds]
    record.conclude(
        time_over_plain=ratios,
        checkpoint_ms={kind: statistics.median(one[kind] for one in waits) for kind in waits[0]},
    )


def _arm(options: argparse.Namespace, changes: Sequence[str]) -> Arm:
    flags = [part for change in changes for part in ("--set", change)]

    def measured() -> Figures:
        return training([options.data, "-n", str(options.images), "-m", options.model, *flags])

    return measured


if __name__ == "__main__":
    main()
