"""Kills runs at random instants and resumes them until they end: every one must end in the bytes of a run left alone.

    python tests/torture/torture.py -n 200 -j 2 -o result.json

For each configuration of `matrix.py`, a run that nobody disturbs gives the digests that are expected. Then come the
kills by SIGKILL: two thirds at an instant drawn over the whole duration, one third within 3 ms of the appearance of a
new name in the folder, as when a save begins. Some kills also damage the newest checkpoint, as a disk would; one signal
in ten asks (SIGTERM, SIGINT) and counts as no kill. Resumptions draw other numbers of workers and another loader. Exit
code 1 where any run ended otherwise or would not go on. Instants apart, all that is random follows from --seed.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads would not survive a fork

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from attempts import living_processes, wait_until
from matrix import MATRIX, Configuration, write_photos
from ordeal import Outcome, spread, torture

from residuum.hardware import describe_hardware, versions

PRELOADED = ("sklearn.datasets", "torch._dynamo", "torch.utils.tensorboard")  # what every child would import anew


def main(arguments: Sequence[str]) -> int:
    """The command; 1 where anything was not as it must be. The process must not have computed with torch."""
    options = parse(arguments)
    for module in PRELOADED:
        importlib.import_module(module)
    work, began = Path(tempfile.mkdtemp(prefix="torture-")), time.monotonic()
    write_photos(work / "photos")
    chosen = [each for each in MATRIX if not options.only or each.name in options.only]
    found = []
    for outcome in outcomes(chosen, options.kills, options.seed, options.jobs, work):
        print(outcome.line(), *outcome.problems, sep="\n  ", flush=True)
        found.append(outcome)
    result = summary(found) | {"seed": options.seed, "seconds": round(time.monotonic() - began, 1)}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(last_line(result))
    if result["identical"]:
        shutil.rmtree(work)
        return 0
    print(f"the folders and logs are kept in {work}")
    return 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", "--kills", type=int, default=50, help="how many in all")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="configurations at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="write the counts as JSON")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in MATRIX], metavar="CONFIGURATION")
    return parser.parse_args(arguments)


def outcomes(
    configurations: Sequence[Configuration], kills: int, seed: int, jobs: int, work: Path
) -> Iterator[Outcome]:
    """Each configuration's outcome, as it comes."""
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        counts = spread(kills, configurations)
        futures = [pool.submit(torture, *each, seed, work) for each in zip(configurations, counts, strict=True)]
        for future in as_completed(futures):
            yield future.result()


def survivors(found: Sequence[Outcome]) -> list[int]:
    """Worker processes that have not noticed, after 20 s, that the one they worked for is dead."""
    sessions = {session for outcome in found for session in outcome.sessions}

    def alive() -> list[int]:
        return [process.pid for process in living_processes() if process.session in sessions]

    wait_until(lambda: not alive(), 20)
    return alive()


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """The counts, in all and by configuration, and what they were counted on."""
    saves = sum((outcome.saves for outcome in found), Counter())
    counts = ("kills", "asked", "aimed", "damaged", "resumes", "runs")
    outlived = survivors(found)
    each = [{key: value for key, value in vars(outcome).items() if key != "sessions"} for outcome in found]
    return {
        "identical": not outlived and not any(outcome.problems for outcome in found),
        **{name: sum(getattr(outcome, name) for outcome in found) for name in counts},
        "inside_a_save": saves.total(),
        "saves": dict(saves),
        "outlived": outlived,
        "versions": versions(),
        "hardware": describe_hardware(torch.device("cpu")),
        "configurations": sorted(each, key=lambda counts: str(counts["name"])),
    }


def last_line(result: dict[str, Any]) -> str:
    verdict = "all identical" if result["identical"] else "NOT IDENTICAL, or worse"
    if result["outlived"]:
        verdict += f"; worker processes outlived their run: {result['outlived']}"
    return (
        f"{result['kills']} kills, {result['inside_a_save']} of them inside a save, {result['damaged']} checkpoints "
        f"damaged, {result['resumes']} resumed, {result['runs']} runs finished in {result['seconds']:.0f} s: {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
