"""`residuum bench`: how fast a model is by every engine at hand."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residuum.cli import options
from residuum.cli.messages import print_notes, printable_table
from residuum.cli.startup import import_torch
from residuum.errors import UserError
from residuum.files import refuse_read_only, write_json
from residuum.records import Cell, Table

if TYPE_CHECKING:
    from torch import nn

    from residuum.inference.bench import Arm, Speed
    from residuum.inference.exported import Exported

_BUSY = 0.5  # processes that wanted to compute in the minute before


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL", help="A run folder, its model/ folder, a folder in the Hub layout, or an export."
        ),
    ],
    engines: Annotated[
        str | None,
        typer.Option(
            "--engines",
            metavar="NAME,NAME,...",
            help="Only these: eager, compiled, eager-bf16 or compiled-bf16 of a run; openvino, onnxruntime, torch, "
            "eager or compiled of an export.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, metavar="N", help="Images at once for the throughput.")
    ] = 32,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="How often the engines take turns.")] = 5,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.0, metavar="X", help="How long each is measured in a round, twice."),
    ] = 1.0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write all figures to a JSON file.")
    ] = None,
    as_json: options.AsJson = False,
    device: options.Device = "auto",
) -> None:
    """Measure latency at one image and throughput at a batch, the engines taking turns.

    Example: residuum bench runs/photos runs/photos-onnx runs/photos-onnx-int8
    """
    if out is not None:
        refuse_read_only(out)
    wanted = [name.strip() for name in engines.split(",")] if engines else []
    arms = _arms(models, wanted, device)
    from residuum.inference.bench import base_of, record, setting

    where = setting()
    speeds = _shown(arms, {"batch_size": batch_size, "rounds": rounds, "seconds": seconds})
    base = base_of(speeds)
    found = {
        "setting": where,
        "batch_size": batch_size,
        "rounds": rounds,
        "base": None if base is None else [base.model, base.engine],
        "engines": [record(speed, base) for speed in speeds],
    }
    if out is not None:
        write_json(out, found)
    _print(found, as_json)
    if base is None:
        raise UserError("no engine could compute the model; see the reasons above")


def _arms(models: Sequence[Path], wanted: Sequence[str], device: str) -> "list[Arm]":
    """Of all models; where none is a run, PyTorch with the networks that were exported comes first, if it is here."""
    from residuum.inference.bench import BESIDE_EXPORTS, arms_of, beside_exports
    from residuum.inference.exported import export_folder

    are_exports = all(map(export_folder, models))
    needs_torch = not wanted or not BESIDE_EXPORTS.isdisjoint(wanted)
    if not are_exports or (needs_torch and find_spec("torch")):
        import_torch()
    arms = [arm for model in models for arm in arms_of(model, wanted, device)]
    if are_exports and "torch" in sys.modules:
        arms = [*beside_exports(models, _network, wanted, device), *arms]
    if not arms:
        raise UserError(f"none of {', '.join(wanted)} computes this model here; leave out --engines to see what does")
    return arms


def _network(exported: "Exported") -> "nn.Module":
    from residuum.models.catalogue import create_model

    classes, channels = len(exported.classes), exported.preprocessing.channels
    return create_model(exported.architecture, num_classes=classes, in_channels=channels, **exported.model_args)


def _shown(arms: "Sequence[Arm]", how: dict[str, Any]) -> "list[Speed]":
    """Measured, with what is done now shown on a terminal; elsewhere it takes its time in silence."""
    from rich.console import Console

    from residuum.inference.bench import measure

    console = Console(stderr=True)
    with console.status("starting") as status:
        return measure(arms, **how, look=status.update)


def _print(found: dict[str, Any], as_json: bool) -> None:
    from residuum.report.terminal import print_json, print_table

    if as_json:
        print_json(found)
        return
    print_table(printable_table(_table(found)))
    print_notes(_notes(found))


def _table(found: dict[str, Any]) -> Table:
    where, batch = found["setting"], found["batch_size"]
    several = len({one["model"] for one in found["engines"]}) > 1
    base = found["base"] or ("", "")
    times = (f"× {base[1]} at 1", f"× {base[1]} at {batch}")
    columns = (
        "engine",
        "p50, ms",
        "p99, ms",
        "calls",
        f"images/s at {batch}",
        "least to most",
        *times,
        "ready, s",
        "computed by",
    )
    rows = [(*([one["model"]] if several else []), *_row(one)) for one in found["engines"]]
    cores = where["cores"]
    title = f"{where['processor']}, {cores} core{'s' * (cores > 1)}, {found['rounds']} rounds"
    return Table(title, (*(["model"] if several else []), *columns), tuple(rows))


def _row(one: dict[str, Any]) -> tuple[Cell, ...]:
    if one["error"] is not None:
        return (one["engine"], *[None] * 8, f"failed: {one['error']}")
    latency, rate = one["latency_ms"], one["images_per_second"]
    return (
        one["engine"],
        round(latency["p50"], 2),
        round(latency["p99"], 2),
        latency["calls"],
        round(rate["median"], 1),
        f"{rate['least']:,.1f} to {rate['most']:,.1f}",
        _times(one["speedup_at_1"]),
        _times(one["speedup_at_batch"]),
        round(one["ready_seconds"], 2),
        one["computed_by"],
    )


def _times(band: dict[str, float]) -> str:
    return f"{band['median']:.2f} ({band['least']:.2f} to {band['most']:.2f})"


def _notes(found: dict[str, Any]) -> list[str]:
    load = found["setting"]["load_before"]
    notes = [f"p50 and p99 are of one image; images/s are medians of {found['rounds']} rounds"]
    if load is not None and load > _BUSY:
        notes.append(f"the machine was busy before this began (load {load:.1f}): alone it gives better figures")
    return notes
