"""What distribution costs: one process with two threads against torchrun with two processes of one thread each.

    python benchmarks/distribution.py cifar10 -o benchmarks/results/distribution.json

The same global batch of 128, ResNet-20. On one machine both have the same two cores, so that a ratio of 1 means that
exchanging gradients costs nothing. Memory, of all processes together (torchrun's own with them), is taken in one more
run of each arm.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

from measuring import Arm, Figures, Record, add_common_options, medians, speeds
from memory import peak_memory
from own_arms import training, training_command

GLOBAL_BATCH = 128


@dataclass(frozen=True)
class Launch:
    """How many processes, started how, with how many threads each."""

    processes: int
    threads: int
    launcher: Sequence[str] = field(default=())

    def arguments(self, options: argparse.Namespace) -> list[str]:
        """What `own_arms.py train` is told."""
        changes = [
            f"batch_size={GLOBAL_BATCH // self.processes}",
            f"epochs={options.epochs}",
            f"evaluate_every={options.epochs}",
            "precision=auto",
        ]
        flags = [part for change in changes for part in ("--set", change)]
        return [options.data, "-n", str(options.images), "-R", "he2015-cifar", "-m", "resnet20", *flags]


LAUNCHES = {
    "1 process": Launch(1, 2),
    "2 processes": Launch(2, 1, ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")),
}


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-n", "--images", type=int, default=6400, help="in an epoch")
    parser.add_argument("-e", "--epochs", type=int, default=4, help="in a round, the first of which warms up")
    add_common_options(parser)
    options = parser.parse_args()

    record = Record(options)
    arms: dict[str, Arm] = {name: _arm(launch, options) for name, launch in LAUNCHES.items()}
    record.run(arms)
    record.once("memory", lambda: {name: _memory(launch, options) for name, launch in LAUNCHES.items()})
    record.conclude(
        images_per_second=medians(record.rounds, "images_per_second"),
        times_as_fast_as_one=speeds(record.rounds, "1 process", "images_per_second"),
    )


def _arm(launch: Launch, options: argparse.Namespace) -> Arm:
    def measured() -> Figures:
        return training(launch.arguments(options), launch.launcher, OMP_NUM_THREADS=str(launch.threads))

    return measured


def _memory(launch: Launch, options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        command = training_command(launch.arguments(options), folder, launch.launcher)
        return peak_memory(command, OMP_NUM_THREADS=str(launch.threads))


if __name__ == "__main__":
    main()
