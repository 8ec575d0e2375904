"""Kills `residuum predict --out` at random instants until it is done: the rows must be the bytes of a job left alone.

    python tests/torture/bulk.py -n 100 -o result.json

The whole command, with an exported network and some thousands of small images, one in 400 of them damaged. For each
format in turn, a job that nobody disturbs gives the file that is expected and how long that takes; then jobs are begun,
killed by SIGKILL at an instant drawn over a second and three fifths of that time, and begun again until they end by
themselves; as many jobs as it takes for so many kills. Exit code 1 where a file ended otherwise, anything else was left
beside it, or a start ended with a complaint. Instants apart, all that is random follows from --seed.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.hardware import describe_hardware, versions
from residuum.inference.export import export
from residuum.inference.journal import read_progress
from residuum.models.catalogue import create_model
from residuum.weights import Classifier

SUFFIXES = (".jsonl", ".csv", ".parquet")
SIZE = 32
DAMAGED_EACH = 400
BAD_FILES_MET = 1  # the exit code that says so
PATIENCE = 600.0


@dataclass
class Outcome:
    """What became of the jobs of one format.

    with_rows: kills after which the record counted some rows; torn: those that left rows which it does not count.
    """

    suffix: str
    undisturbed_seconds: float
    rows: int
    jobs: int = 0
    starts: int = 0
    kills: int = 0
    with_rows: int = 0
    torn: int = 0
    problems: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """The command; 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", "--kills", type=int, default=100, help="how many in all, at least")
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="write the counts as JSON")
    options = parser.parse_args(arguments)
    work, began = Path(tempfile.mkdtemp(prefix="bulk-torture-")), time.monotonic()
    write_photos(work / "photos", options.files, options.seed)
    write_export(work / "export", options.seed)
    kills_of_each = -(-options.kills // len(SUFFIXES))
    found = [tortured(suffix, kills_of_each, options.seed, work) for suffix in SUFFIXES]
    result = summary(found) | {"files": options.files, "seed": options.seed}
    result["seconds"] = round(time.monotonic() - began, 1)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    if not result["identical"]:
        print(f"the folders are kept in {work}")
        return 1
    shutil.rmtree(work)
    return 0


def write_photos(folder: Path, count: int, seed: int) -> None:
    """JPEG files in ten sub-folders, each of other pixels; some of them cut off."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / str(number % 10) / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)
        if number % DAMAGED_EACH == 7:
            path.write_bytes(path.read_bytes()[:100])


def write_export(folder: Path, seed: int) -> None:
    """A small network with the weights that it begins with, for ONNX Runtime."""
    torch.manual_seed(seed)
    classes = tuple(map(str, range(10)))
    images = np.random.default_rng(seed).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
    split = ArraySplit(images, np.arange(20) % 10, NumberedNames("noise", 20))
    classifier = Classifier(
        create_model("resnet20", num_classes=10).eval(), "resnet20", classes, Preprocessing(3, SIZE)
    )
    export(classifier, folder, "onnx", DataSet("noise", classes, {"test": split}, multi_label=False))


def tortured(suffix: str, kills: int, seed: int, work: Path) -> Outcome:
    """Jobs of one format until there were so many kills."""
    expected = work / f"undisturbed{suffix}"
    began = time.monotonic()
    code = started(work, expected).wait(PATIENCE)
    found = Outcome(suffix, round(time.monotonic() - began, 2), read_progress(expected).rows)
    if code != BAD_FILES_MET:
        found.problems.append(f"undisturbed it ended with {code}")
        return found
    instants = random.Random(f"{seed}{suffix}")
    while found.kills < kills and not found.problems:
        out = work / f"job-{found.jobs}{suffix}" / f"rows{suffix}"
        one_job(work, out, found, instants)
        found.problems += differences(expected, out)
        found.jobs += 1
        print(f"{suffix}: {found.jobs} jobs, {found.kills} kills", file=sys.stderr, flush=True)
    return found


def one_job(work: Path, out: Path, found: Outcome, instants: random.Random) -> None:
    """Begin it, and kill it, until it ends by itself."""
    out.parent.mkdir()
    while True:
        process = started(work, out)
        found.starts += 1
        try:
            code = process.wait(instants.uniform(0, 1 + 0.6 * found.undisturbed_seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code >= 0:
            break
        found.kills += 1
        count_what_is_left(out, found)
    if code != BAD_FILES_MET:
        found.problems.append(f"a start ended with {code}: {work / out.parent.name}.log")


def started(work: Path, out: Path) -> "subprocess.Popen[bytes]":
    """The command, whose words go to the end of a file `log`."""
    command = ["predict", work / "export", work / "photos", "--out", out, "--engine", "onnxruntime", "-b", "16"]
    with (work / f"{out.parent.name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "residuum", *map(str, command)], stdout=log, stderr=log)


def count_what_is_left(out: Path, found: Outcome) -> None:
    """Of a kill: were there rows, and some that no record counts."""
    if not out.with_name(out.name + ".job").exists():
        return
    progress = read_progress(out)
    rows = out.with_name(out.name + ".rows") if found.suffix == ".parquet" else out
    found.with_rows += bool(progress.rows)
    found.torn += rows.exists() and rows.stat().st_size > progress.size


def differences(expected: Path, out: Path) -> list[str]:
    """What is not as if nobody had disturbed it."""
    wanted = {out.name, f"{out.name}.job"}
    beside = {path.name for path in out.parent.iterdir()} ^ wanted
    found = [f"{out}: missing, or too much: {sorted(beside)}"] if beside else []
    if not out.exists() or out.read_bytes() != expected.read_bytes():
        found.append(f"{out} is not {expected}")
    elif read_progress(out) != read_progress(expected):
        found.append(f"the record of {out} is not that of {expected}")
    return found


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """The counts, in all and by format, and what they were counted on."""
    counts = ("jobs", "starts", "kills", "with_rows", "torn")
    return {
        "identical": not any(outcome.problems for outcome in found),
        **{name: sum(getattr(outcome, name) for outcome in found) for name in counts},
        "formats": [vars(outcome) for outcome in found],
        "versions": versions(),
        "hardware": describe_hardware(torch.device("cpu")),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
