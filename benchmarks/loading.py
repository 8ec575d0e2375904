"""Images per second that a loader delivers, against torchvision's transforms in a DataLoader; and its memory.

    python benchmarks/loading.py photos/ -o benchmarks/results/loading.json
    python benchmarks/loading.py cifar10 -s -o benchmarks/results/loading-small.json

Photographs: random resized crops of 224, flips, normalised float batches as training gets them; torchvision with 1, 2
and 3 loader processes, of which the best counts; residuum from the files and from a pack (`residuum pack`). With -s the
input of CIFAR: padded crops and flips of 32x32 images. The first pass over the data warms up. Memory, of all processes
together, is taken in one more run of each arm.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from measuring import Arm, Figures, Record, add_common_options, medians, printed_json, speeds, with_rate
from memory import peak_memory
from samples import class_folder, open_sample, write_arrays

HERE = Path(__file__).parent
PEER = HERE / "peers" / "file_loader.py"
OWN = HERE / "own_arms.py"
PEER_WORKERS = (1, 2, 3)
WORKERS = 2


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of photographs, a folder for each class; with -s a data spec")
    parser.add_argument("-s", "--small", action="store_true", help="CIFAR's kind of input")
    parser.add_argument("-n", "--images", type=int, help="in a pass (default: 1,000 photographs, 10,000 small images)")
    parser.add_argument("-e", "--epochs", type=int, default=4, help="passes in a round, the first of which warms up")
    add_common_options(parser)
    options = parser.parse_args()
    options.images = options.images or (10_000 if options.small else 1_000)

    record = Record(options)
    with tempfile.TemporaryDirectory() as folder:
        commands = _small(options, Path(folder)) if options.small else _photographs(options, Path(folder))
        # Where workers decode, a second thread of the main process would wait for a core, at work all the while.
        threads = {} if options.small else {"OMP_NUM_THREADS": "1"}
        arms: dict[str, Arm] = {name: _arm(command, **threads) for name, command in commands.items()}
        if not options.small:
            images = min(256, options.images)
            compare = [sys.executable, str(OWN), "compare", options.data, "-n", str(images)]
            record.once("crops_against_pillow", lambda: printed_json(compare))
            if "residuum, pack" not in commands:
                record.once("left_out", lambda: "residuum, pack: this residuum has no verb pack")
        record.run(arms)
        record.once("memory", lambda: {name: peak_memory(command) for name, command in commands.items()})
    rates = medians(record.rounds, "images_per_second")
    best = max((arm for arm in rates if arm.startswith("torchvision")), key=lambda arm: rates[arm])
    record.conclude(
        images_per_second=rates,
        peer=best,
        times_as_fast_as_peer=speeds(record.rounds, best, "images_per_second"),
    )


def _arm(command: Sequence[str], **environment: str) -> Arm:
    def measured() -> Figures:
        return with_rate(printed_json(command, **environment))

    return measured


def _small(options: argparse.Namespace, folder: Path) -> Mapping[str, Sequence[str]]:
    write_arrays(open_sample(options.data, options.images), folder, channels=3)
    counts = {"--images": options.images, "--epochs": options.epochs}
    return {
        **{f"torchvision, {workers}": _peer("arrays", folder, counts, workers) for workers in PEER_WORKERS},
        "residuum": _own(options.data, "memory", counts, 0),
    }


def _photographs(options: argparse.Namespace, folder: Path) -> Mapping[str, Sequence[str]]:
    counts = {"--images": options.images, "--epochs": options.epochs}
    source = class_folder(options.data)
    commands = {f"torchvision, {workers}": _peer("photographs", source, counts, workers) for workers in PEER_WORKERS}
    commands["residuum"] = _own(options.data, "file", counts, WORKERS)
    if _packed(options.data, folder / "pack"):
        commands["residuum, pack"] = _own(str(folder / "pack"), "file", counts, WORKERS)
    return commands


def _packed(data: str, target: Path) -> bool:
    """Whether `residuum pack` is there; if so it has packed the data into `target`."""
    pack = [sys.executable, "-m", "residuum", "pack"]
    if subprocess.run([*pack, "--help"], capture_output=True).returncode:
        return False
    done = subprocess.run([*pack, str(class_folder(data)), str(target)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"residuum pack ended with {done.returncode}: {done.stderr[-2000:]}")
    return True


def _peer(kind: str, source: Path, counts: Mapping[str, int], workers: int) -> list[str]:
    return [sys.executable, str(PEER), kind, str(source), *_flags(counts), "--workers", str(workers)]


def _own(data: str, kind: str, counts: Mapping[str, int], workers: int) -> list[str]:
    return [sys.executable, str(OWN), "load", data, "--kind", kind, *_flags(counts), "--workers", str(workers)]


def _flags(counts: Mapping[str, int]) -> list[str]:
    return [part for flag, count in counts.items() for part in (flag, str(count))]


if __name__ == "__main__":
    main()
