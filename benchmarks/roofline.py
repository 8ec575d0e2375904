"""What bounds a training step: arithmetic, memory or launches; and a model of what training costs, fitted to it.

    python benchmarks/roofline.py -o benchmarks/results/roofline-cpu.json
    python benchmarks/roofline.py --predict resnet44 --images 50000 --epochs 10

The first probes the machine (`machine.py`), counts what a step of each network computes and moves, operator by operator
(`traffic.py`), and measures it (`training_step.py`). The roofline is the sum over operators of the longer of two times:
its arithmetic at the peak for its type, and its bytes at the speed of memory or, of so few that a cache holds them, of
the cache: less time than that no unfused step can take. The second reads what the first
wrote and predicts a network that need not be among the measured ones (`cost.py`).
"""

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cost import NetCost, Speeds, Work, errors_left_out, fit, net_cost, predict
from machine import Machine, probe, seconds_of_rounds
from measuring import add_common_options, band, command_line
from torch import Tensor, nn
from traffic import Clock, Operator, training_operators
from training_step import forward_and_backward, random_batch, training_step

from residuum.errors import UserError
from residuum.files import read_json, write_json
from residuum.hardware import choose_device, choose_precision, describe_hardware, keep_freed_memory, versions
from residuum.models.catalogue import create_model
from residuum.models.summary import paper_input
from residuum.records import plain

NETS = {
    "cpu": "resnet20@32/128 resnet56@32/128 resnet110@32/128 resnet18@96/256 resnet18@224/32 resnet50@224/32",
    "cuda": "resnet20@32/128 resnet56@32/128 resnet110@32/128 resnet18@96/256 resnet18@224/256 resnet50@224/256",
}
RESULTS = Path(__file__).parent / "results"
_GREATER = 0.02  # of a step
COLUMNS = (
    "network",
    "input",
    "batch",
    "GFLOP",
    "GB",
    "arithmetic, ms",
    "memory, ms",
    "launches, ms",
    "roofline, ms",
    "measured, ms",
    "roofline / measured",
    "bound by",
    "model's error",
)


class Case(NamedTuple):
    """A network on images of `size` x `size`, `batch` to an update; written resnet20@32/128."""

    model: str
    size: int
    batch: int


def parse_case(text: str) -> Case:
    """Raises UserError for what is not NETWORK@SIZE/BATCH."""
    found = re.fullmatch(r"(.+)@([1-9][0-9]*)/([1-9][0-9]*)", text)
    if found is None:
        raise UserError(f"{text!r} is not NETWORK@SIZE/BATCH; write resnet20@32/128")
    return Case(found[1], int(found[2]), int(found[3]))


def network_for(case: Case, device: torch.device) -> nn.Module:
    """As a training run lays it out."""
    return create_model(case.model).to(device, memory_format=torch.channels_last)


def roofline(operators: Sequence[Operator], images: int, machine: Machine) -> dict[str, Any]:
    """The least time a step of `images` can take on `machine`, what takes it, and what bounds it.

    Seconds: all arithmetic alone, all bytes alone, the launches alone, and the roofline, whole and by kind
    of operator. memory_share: the part of the roofline's time in which memory is what is waited for.
    """
    by_kind: defaultdict[str, float] = defaultdict(float)
    all_arithmetic = all_memory = waits = 0.0
    for operator in operators:
        moved = operator.bytes(images)
        arithmetic = images * operator.arithmetic / machine.operations_per_second(operator.dtype)
        memory = moved / machine.bytes_per_second(moved)
        all_arithmetic, all_memory = all_arithmetic + arithmetic, all_memory + memory
        waits += memory if memory > arithmetic else 0.0
        by_kind[operator.kind] += max(arithmetic, memory)
    whole, launches = sum(by_kind.values()), len(operators) * machine.operator_us * 1e-6
    return {
        "operators": len(operators),
        "gflop": 1e-9 * images * sum(operator.arithmetic for operator in operators),
        "gigabytes": 1e-9 * sum(operator.bytes(images) for operator in operators),
        "seconds": {
            "arithmetic": all_arithmetic,
            "memory": all_memory,
            "launches": launches,
            "roofline": whole,
            "by_kind": dict(by_kind),
        },
        "memory_share": waits / whole,
        "bound": bound(all_arithmetic, all_memory, launches),
    }


def bound(arithmetic: float, memory: float, launches: float) -> str:
    """What takes longest: "arithmetic", "memory", or "launches" (on a CPU, PyTorch's own work for each operator)."""
    return max((arithmetic, "arithmetic"), (memory, "memory"), (launches, "launches"))[1]


def measure(case: Case, machine: Machine, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """One network's row of the result."""
    network = network_for(case, device)
    input_size = (3, case.size, case.size)
    operators = training_operators(network, input_size, dtype)
    net = net_cost(network, input_size, operators)
    result = roofline(operators, case.batch, machine)
    batch = random_batch(case.batch, input_size, device)
    measured = band(seconds_of_rounds(training_step(network, *batch, dtype), device, rounds))
    result["seconds"] |= {"measured": measured["median"], "measured_band": measured}
    if device.type == "cpu":
        result["seconds"]["measured_by_kind"] = seconds_by_kind(network, batch, dtype)
    share = result["seconds"]["roofline"] / measured["median"]
    return case._asdict() | net._asdict() | result | {"share_of_roofline": share}


def seconds_by_kind(network: nn.Module, batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> dict[str, float]:
    """Where the forward and the backward pass of one step spend their time, on a CPU."""
    network.zero_grad()
    with Clock() as clock:
        forward_and_backward(network, *batch, dtype)
    return dict(clock.seconds)


def cost_model(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The speeds fitted to all measured networks, and the error in % of each when it is predicted from the others."""
    nets = [NetCost(*(row[name] for name in NetCost._fields)) for row in measured]
    works = [Work(row["batch"], 1) for row in measured]
    seconds = [row["seconds"]["measured"] for row in measured]
    return {"seconds": fit(nets, works, seconds)._asdict(), "error_percent": errors_left_out(nets, works, seconds)}


def measure_all(cases: Sequence[Case], precision: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """The whole result: machine, networks, cost model. Raises UserError for fewer than two networks."""
    if len(cases) < 2:
        raise UserError(f"{len(cases)} network cannot be predicted from the others; name at least 2")
    dtype = choose_precision(precision, device)
    machine = probe(device)
    measured = []
    for case in cases:
        print(*case, file=sys.stderr, flush=True)
        measured.append(measure(case, machine, device, dtype, rounds))
    return {
        "versions": versions(),
        "hardware": describe_hardware(device),
        "precision": str(dtype).removeprefix("torch."),
        "machine": machine.record(),
        "networks": measured,
        "cost_model": cost_model(measured),
    }


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The result as a table of text, a row a network, under COLUMNS."""
    return [
        (
            row["model"],
            f"{row['size']}x{row['size']}",
            str(row["batch"]),
            f"{row['gflop']:.3g}",
            f"{row['gigabytes']:.3g}",
            *(
                milliseconds(row["seconds"][name])
                for name in ("arithmetic", "memory", "launches", "roofline", "measured")
            ),
            f"{100 * row['share_of_roofline']:.0f} %",
            row["bound"],
            f"{error:+.0f} %",
        )
        for row, error in zip(result["networks"], result["cost_model"]["error_percent"], strict=True)
    ]


def kind_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Of each network measured on a CPU: (network, kind of operator, roofline in ms, measured in ms); the greater."""
    return [
        (
            f"{row['model']} {row['size']}x{row['size']}",
            kind,
            milliseconds(row["seconds"]["by_kind"][kind]),
            milliseconds(seconds),
        )
        for row in result["networks"]
        for kind, seconds in row["seconds"].get("measured_by_kind", {}).items()
        if kind in row["seconds"]["by_kind"] and seconds >= _GREATER * row["seconds"]["measured"]
    ]


def milliseconds(seconds: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{1000 * seconds:.{max(0, 2 - math.floor(math.log10(1000 * seconds)))}f}"


def machine_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What the probe found, as (what, speed)."""
    machine = result["machine"]
    arithmetic = [
        (f"{operation}, {dtype}", f"{speed:,.0f} GFLOP/s")
        for dtype, speeds in machine["arithmetic"].items()
        for operation, speed in speeds.items()
    ]
    memory = [
        (f"{operation}, {size} MiB moved", f"{speed:.1f} GB/s")
        for size, speeds in machine["bandwidth"].items()
        for operation, speed in speeds.items()
    ]
    return [*arithmetic, *memory, ("an operator on next to no data", f"{machine['operator_us']:.1f} us")]


def predicted(result: dict[str, Any], case: Case, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What training would take by a written result's cost model, and of what that is made up."""
    network = network_for(case, device)
    input_size = (3, case.size, case.size)
    net = net_cost(network, input_size, training_operators(network, input_size, getattr(torch, result["precision"])))
    updates = options.epochs * math.ceil(options.images / (case.batch * options.devices))
    work = Work(options.epochs * options.images, updates, options.devices, 1e9 * options.link)
    seconds = predict(Speeds(**result["cost_model"]["seconds"]), net, work)
    return case._asdict() | net._asdict() | work._asdict() | {"seconds": seconds}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", help="NETWORK@SIZE/BATCH; six usual ones if none is named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    add_common_options(parser)
    parser.add_argument("--predict", metavar="NETWORK", help="predict this network's training; measure nothing")
    parser.add_argument("--size", type=int, help="input side in pixels (default: the paper's)")
    parser.add_argument("-b", "--batch-size", type=int, default=128, help="images to an update of one device")
    parser.add_argument("--images", type=int, default=50_000, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--link", type=float, default=math.inf, help="GB/s from device to device")
    parser.add_argument("--from", dest="source", type=Path, help="what to predict from (default: results/roofline-…)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Measure and write, or predict and print."""
    device = choose_device(options.device)
    if device.type not in NETS:
        raise UserError(f"device {device.type!r} has no roofline here; use --device {' or '.join(NETS)}")
    keep_freed_memory()
    if options.predict:
        source = options.source or RESULTS / f"roofline-{device.type}.json"
        if not source.is_file():
            raise UserError(f"{source} is not there; measure first, with -o {source}")
        case = Case(options.predict, options.size or paper_input(options.predict)[1], options.batch_size)
        print(json.dumps(plain(predicted(read_json(source), case, options, device)), indent=2))
        return
    cases = [parse_case(text) for text in options.nets or NETS[device.type].split()]
    result = {"command": command_line(sys.argv)} | measure_all(cases, options.precision, device, options.rounds)
    if options.out:
        write_json(options.out, result)
    print(json.dumps(result, indent=2))
    for row in [*machine_rows(result), COLUMNS, *rows(result), *kind_rows(result)]:
        print(*row, sep=" | ", file=sys.stderr)


def main() -> None:
    """An error of the user's is one line, without a traceback."""
    try:
        run(parse())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
