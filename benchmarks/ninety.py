"""The seconds until a test accuracy of 90 % on CIFAR-10, against the published script.

    python benchmarks/ninety.py cifar10 -r 3 -o benchmarks/results/ninety.json

A round is a whole run of the recipe `quick` by the command line, another seed each: start, reading the images, every
epoch with its evaluation and checkpoint, saving. The script's run is too long to take turns with it: it is made once,
to learn how many epochs it needs (its rate falls at a half and three quarters of `--peer-epochs`), and its time is
that number times the seconds of an epoch that training.py found, in turns with residuum, without any evaluation.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from measuring import Figures, Record, add_common_options, band, medians, printed_json, printed_text
from samples import open_sample, write_arrays

from residuum.files import read_json

WANTED = 90.0
PEER = Path(__file__).parent / "peers" / "cifar.py"
TRAINING = Path(__file__).parent / "results" / "training-cifar.json"


def own_run(data: str, seed: int) -> Figures:
    """A run of `quick` from the shell: its seconds, and the test accuracy in %."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "residuum", "train", data, "--seed", str(seed), "-o", f"{folder}/run"]
        printed_text(command)
        seconds = time.perf_counter() - start
        results = read_json(Path(folder) / "run" / "run.json")["results"]
    (evaluation,) = results.values()
    return {"seed": seed, "seconds": seconds, "test_accuracy": evaluation["top1"]["value"]}


def peer_run(data: str, epochs: int) -> Figures:
    """The script's run until it is there: its test accuracy after each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(open_sample(data, None, None), Path(folder), channels=3)
        return printed_json([sys.executable, str(PEER), folder, "--epochs", str(epochs), "--until", str(WANTED)])


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-p", "--peer-epochs", type=int, default=30, help="the length of the script's schedule")
    add_common_options(parser, rounds=3)
    options = parser.parse_args()

    record = Record(options)
    record.run({"residuum": lambda: own_run(options.data, seed=len(record.rounds))})
    peer = record.once("peer", lambda: peer_run(options.data, options.peer_epochs))
    epochs = len(peer["test_accuracy"])
    images = peer["images"]
    rate = medians(read_json(TRAINING)["rounds"], "images_per_second")["peer"]
    seconds = epochs * images / rate
    record.conclude(
        peer_reached=peer["reached"],
        peer_epochs=epochs,
        peer_seconds=seconds,
        times_as_soon=band([seconds / figures["residuum"]["seconds"] for figures in record.rounds]),
    )


if __name__ == "__main__":
    main()
