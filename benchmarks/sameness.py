"""Whether speed changes results: runs as residuum makes them by itself against runs that do without all of it.

    python benchmarks/sameness.py cifar10 -o benchmarks/results/sameness.json

Round by round both arms train `quick` with the same seed, another one each round: by itself; and in fp32 on images that
one process decodes from their files for each use, each GPU update launched kernel by kernel. Compared are the training
loss of the first epoch, seed by seed, and the accuracies over the seeds.
"""

import argparse
import statistics
from math import sqrt

from measuring import Figures, Record, add_common_options
from own_arms import training
from scipy.stats import t

ALL = 10**9  # held-out images, more than there are
PLAIN = ("precision=fp32", "data.loader=file", "data.workers=1", "capture=false")


def arm(data: str, images: int, epochs: int, seed: int, changes: tuple[str, ...]) -> Figures:
    """One run of `quick`."""
    settings = [f"seed={seed}", f"epochs={epochs}", f"evaluate_every={epochs}", *changes]
    return training(
        [data, "-n", str(images), "--held-out", str(ALL), *(part for change in settings for part in ("--set", change))]
    )


def difference(ones: list[float], others: list[float]) -> Figures:
    """The mean of the paired differences, and its 95 % interval (Student's t)."""
    gaps = [one - other for one, other in zip(ones, others, strict=True)]
    reach = t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / sqrt(len(gaps))
    mean = statistics.mean(gaps)
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-n", "--images", type=int, default=20_000, help="in an epoch")
    parser.add_argument("-e", "--epochs", type=int, default=3)
    add_common_options(parser)
    options = parser.parse_args()

    record = Record(options)
    arms = {"by itself": (), "plain": PLAIN}
    record.run(
        {
            name: lambda changes=changes: arm(options.data, options.images, options.epochs, len(record.rounds), changes)
            for name, changes in arms.items()
        }
    )
    accuracies = {name: [figures[name]["test_accuracy"] for figures in record.rounds] for name in arms}
    first = [[figures[name]["train_loss"][0] for figures in record.rounds] for name in arms]
    record.conclude(
        test_accuracy={
            name: {"mean": statistics.mean(values), "standard_deviation": statistics.stdev(values)}
            for name, values in accuracies.items()
        },
        accuracy_difference=difference(accuracies["by itself"], accuracies["plain"]),
        first_epoch_loss_apart=max(abs(one - other) / other for one, other in zip(*first, strict=True)),
    )


if __name__ == "__main__":
    main()
