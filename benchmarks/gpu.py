"""Everything that is promised for a GPU, measured: one command, under 10 minutes, a table and a JSON file.

    python benchmarks/gpu.py CIFAR10 --fashion-mnist FASHION -o benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --smoke -o smoke.json        (tries the code; its figures mean nothing)

CIFAR10 and FASHION are data specs (a folder, a parquet file, cifar10 with its files at $RESIDUUM_DATA) or .npz files.
Rows are measured in the order of their importance, each against a goal, until the budget is spent; the same command
goes on where the last one stopped. `--only ROW ...` measures these alone, `--again ROW ...` these anew.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_photos import photos_row
from gpu_processes import deepest_row, deterministic_row, roofline_row, side_by_side_row
from gpu_record import Budget, Record, Row, measure_rows, table
from gpu_runs import fashion_row, fast_row, nets_row, resnet20_row, seeds_row
from gpu_setting import SMOKE, Setting, Sizes
from gpu_steps import compiled_row, peer_row, step_row

from residuum.errors import UserError, unknown_name
from residuum.hardware import choose_device, describe_hardware, versions
from residuum.report.terminal import print_table
from residuum.training.interruption import Interrupted

BUDGET = 560.0  # seconds: under ten minutes with the grace of the last piece


def all_rows(setting: Setting, record: Record) -> list[Row]:
    """The rows in the order of their importance. The last takes all the time that is left."""
    return [
        resnet20_row(setting),
        step_row(setting),
        peer_row(setting),
        photos_row(setting),
        fashion_row(setting),
        fast_row(setting),
        deterministic_row(setting),
        side_by_side_row(setting),
        seeds_row(setting, record),
        nets_row(setting, record),
        roofline_row(setting),
        compiled_row(setting),
        deepest_row(setting),
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="CIFAR-10; rows that need it are left out without it")
    parser.add_argument("--fashion-mnist", metavar="DATA")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds this call may take")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW")
    parser.add_argument("--again", nargs="+", default=[], metavar="ROW")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try the code")
    parser.add_argument("--work", type=Path, help="folder for what must outlast this call; by default beside the JSON")
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu.json"))
    return parser.parse_args(arguments)


def head(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """What figures depend on: they go into one file only where it is the same."""
    return {
        "smoke": options.smoke,
        "versions": versions(),
        "hardware": describe_hardware(setting.device),
    }


def choose(rows: Sequence[Row], options: argparse.Namespace, record: Record) -> list[Row]:
    """The rows to measure, those asked for again with nothing done. Raises UserError for a name that no row has."""
    names = [row.name for row in rows]
    for name in [*options.only, *options.again]:
        if name not in names:
            raise unknown_name("row", name, names)
    for name in options.again:
        record.forget(name)
    return [row for row in rows if row.name in options.only or not options.only]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is left, print the table, and return the exit code."""
    options = parse(arguments)
    budget = Budget(options.budget, time.monotonic())
    try:
        setting = Setting(
            device=_device(options.device),
            sizes=SMOKE if options.smoke else Sizes(),
            is_smoke=options.smoke,
            cifar_spec=options.data,
            fashion_spec=options.fashion_mnist,
            work=options.work or options.out.with_suffix(".work"),
            seconds_left=lambda: budget.left,
        )
        record = Record(options.out, head(options, setting))
        rows = all_rows(setting, record)
        chosen = choose(rows, options, record)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        measure_rows(chosen, record, budget, lambda text: print(text, flush=True))
        code = 0
    except (KeyboardInterrupt, Interrupted):
        code = 130
    finally:
        setting.remove_files()
    title = str(describe_hardware(setting.device)["device"])
    title += ": a smoke test, the figures mean nothing" if options.smoke else ""
    print_table(table(title, rows, record))
    return code


def _device(name: str) -> torch.device:
    """The device, or the CPU where there is no GPU: then each row that needs one says so."""
    return choose_device(name if torch.cuda.is_available() or not name.startswith("cuda") else "cpu")


if __name__ == "__main__":
    sys.exit(main())
