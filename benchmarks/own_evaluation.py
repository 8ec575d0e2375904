"""residuum's side of evaluation.py, in a process of its own: `residuum evaluate`, reading the images included.

    python benchmarks/own_evaluation.py MODEL FOLDER --batch-size 32 --protocol 10-crop

Prints one line of JSON.
"""

import argparse
import json
import time

from residuum.data.sources import open_data
from residuum.evaluation.views import KINDS, Protocol
from residuum.inference.evaluate import evaluate
from residuum.weights import load


def main() -> None:
    """Evaluate, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder")
    parser.add_argument("folder", help="with a folder of images for each class, all of which are evaluated on")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--protocol", choices=KINDS, default="1-crop")
    options = parser.parse_args()

    classifier = load(options.model)
    dataset = open_data(options.folder, classes=classifier.classes)
    how = {"batch_size": options.batch_size, "precision": options.precision, "protocol": Protocol(options.protocol)}
    seconds = []
    for _ in range(options.epochs):
        start = time.perf_counter()
        result = evaluate(classifier, dataset, split="all", **how)
        seconds.append(time.perf_counter() - start)
    figures = {"images": result.images, "protocol": result.protocol, "loss": result.loss.value, "top1": result.score}
    print(json.dumps({"seconds_per_epoch": seconds, **figures}))


if __name__ == "__main__":
    main()
