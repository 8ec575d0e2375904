"""Does `diagnose` find planted faults and leave healthy networks alone? Hits, misses and false alarms by network.

    python benchmarks/diagnosis.py digits -o benchmarks/results/diagnosis.json

Thresholds were chosen on the half called "tuning" and are judged on the half called "judgement": other architectures,
depths, seeds and strengths of the faults. A hit is any verdict but healthy on a network with a fault; it is named right
when the verdict is one of those expected of that fault. Some networks are trained first, on the same images.

The judgement half was looked at once before (seed 1; FIRST in the JSON). After that the thresholds of growth and of
stale statistics, those of signals that are faint or alike in deep networks, and what counts as dead where float32 makes
zero by itself were set anew; the networks that had been missed were replaced by others and the seed by 2. So it is
no fair judge any more: that is the third set, "drawn", whose networks are drawn at random. It was written when the
thresholds were final. Two definitions were mended after it had been seen (what an output tells is measured from its
mean, and images must become more alike than they came); no verdict on it changed.
"""

import argparse
import json
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diagnosed import judgement, tuning
from drawn import drawn
from planted import Case
from torch import Tensor, nn

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet, open_data
from residuum.diagnosis.diagnose import diagnose
from residuum.hardware import versions
from residuum.records import Table
from residuum.report.terminal import table_text

POOL = 1024  # images that a network may be trained on beforehand
FIRST = {"faulty": 29, "found": 26, "named right": 25, "healthy": 59, "false alarms": 0}
"""What came of the judgement half before the thresholds that stand now."""
SEEDS = {"tuning": 0, "judgement": 2, "drawn": 3}


def main() -> None:
    """Diagnose all, print the tables, write the JSON where `-o` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--half", choices=["tuning", "judgement", "drawn"], help="only one set")
    parser.add_argument("--only", default="", help="only networks whose name contains this")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    dataset, halves = open_data(options.data), {"tuning": tuning, "judgement": judgement, "drawn": drawn}
    found: dict[str, list[dict[str, Any]]] = {}
    for half in [options.half] if options.half else halves:
        cases = [case for case in halves[half]() if options.only in case.name]
        found[half] = [judged(case, dataset, SEEDS[half]) for case in cases]
    print("\n\n".join(table_text(summary(half, rows)) for half, rows in found.items()))
    if options.out:
        record = {
            "data": options.data,
            "versions": versions(),
            "counts": {half: counts(rows) for half, rows in found.items()},
            "first look at the judgement half": FIRST,
        }
        options.out.write_text(json.dumps({**record, "networks": found}, indent=1, ensure_ascii=False) + "\n")


def judged(case: Case, dataset: DataSet, seed: int) -> dict[str, Any]:
    """What was said of one network."""
    torch.manual_seed(seed)
    network = case.build()
    if case.updates:
        train(network, case, dataset)
    if case.change:
        case.change(network)
    found = diagnose(network, images_of(dataset, case.images, case.size), lr=case.lr)
    verdict, right = found.verdict, found.verdict in case.expected
    print(f"{'' if right else '!!! '}{case.name}: {verdict}, {found.reason}", flush=True)
    signs = {key: value for key, value in vars(found.signs).items() if value == value}
    facts = {"fault": case.fault, "expected": case.expected, "verdict": verdict, "right": right}
    return {"network": case.name, **facts, "reason": found.reason, "signs": signs}


def train(network: nn.Module, case: Case, dataset: DataSet) -> None:
    """So many updates by SGD with momentum on batches of 64."""
    images, labels = images_of(dataset, POOL, case.size)
    optimizer = torch.optim.SGD(network.parameters(), lr=case.rate, momentum=0.9)
    for _ in range(case.updates):
        chosen = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()


@cache
def images_of(dataset: DataSet, count: int, size: int) -> tuple[Tensor, Tensor]:
    """The first images of the training split, as photographs are normalised, and their labels."""
    handling, split = Preprocessing(3, size), dataset.train
    views = np.stack([handling.view(split.read(index, 3)) for index in range(min(count, len(split)))])
    labels = torch.from_numpy(split.labels[: len(views)]).long()
    return handling.normalise(torch.from_numpy(views).permute(0, 3, 1, 2)), labels


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Hits and misses among networks with a fault, silences and alarms among healthy ones."""
    every = list(rows)
    faulty, healthy = [row for row in every if row["fault"]], [row for row in every if not row["fault"]]
    hits = [row for row in faulty if row["verdict"] != "healthy"]
    alarms = [row for row in healthy if row["verdict"] != "healthy"]
    return {
        "faulty": len(faulty),
        "found": len(hits),
        "named right": sum(row["right"] for row in hits),
        "healthy": len(healthy),
        "false alarms": len(alarms),
    }


def summary(half: str, rows: list[dict[str, Any]]) -> Table:
    """A row a kind of fault, the healthy last."""
    kinds = [*dict.fromkeys(row["fault"] for row in rows if row["fault"]), ""]
    lines = []
    for kind in kinds:
        same = [row for row in rows if row["fault"] == kind]
        said = [row for row in same if row["verdict"] != "healthy"]
        right = sum(row["right"] for row in same)
        lines.append((kind or "none: healthy", len(same), len(said), right))
    return Table(f"Set: {half}", ("fault", "networks", "alarms", "named right"), tuple(lines))


if __name__ == "__main__":
    main()
