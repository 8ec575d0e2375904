"""`residuum report`: runs as one page to look at."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residuum.cli import options
from residuum.cli.messages import print_notes
from residuum.cli.run_names import named
from residuum.cli.run_records import RunRecord, read_run
from residuum.cli.startup import import_torch
from residuum.errors import UserError
from residuum.files import refuse_read_only, write_text
from residuum.records import Section

if TYPE_CHECKING:
    from residuum.data.sources import DataSet

REPORT = "report.html"
LOOK_EVERY = 5.0  # seconds


def report(
    runs_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Run folders. After them the data, as for train, where they are not where they were in training.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="By default RUN/report.html, for several report.html here."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it anew while a run goes on; the open page follows.")
    ] = False,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
    device: options.Device = "auto",
) -> None:
    """Write one HTML file on runs: curves, scores, confusion, calibration, mistakes, settings.

    It needs no network and opens from a disk. With the data at hand it shows images, too.

    Example: residuum report runs/photos
    """
    import_torch()
    paths, data = split_arguments(runs_and_data)
    target = out or (paths[0] / REPORT if len(paths) == 1 else Path(REPORT))
    if target.is_dir():
        raise UserError(f"{target} is a folder; name the file to write with -o FILE")
    if watch and _follow(paths, target):
        return
    records = [read_run(path) for path in paths]
    refuse_read_only(target)
    sections = []
    for name, record in named(records).items():
        spec = data or record.manifest["data"]["spec"]
        opened = partial(_open, spec, root=root, val_fraction=val_fraction, split_seed=split_seed)
        found = insights_of(record, opened, device=device, needed=data is not None)
        sections += [replace(one, title=f"{name}: {one.title}") for one in found] if records[1:] else found
    print_notes([fault for record in records for fault in record.faults])
    write_report(records, target, sections)
    print(f"report: {target}")


def _follow(paths: Sequence[Path], target: Path) -> bool:
    """Write the page until no run goes on; whether the last one is then left to `train`, which writes it richer."""
    while not all((path / "run.json").is_file() for path in paths):
        time.sleep(LOOK_EVERY)
    written: list[int] = []
    while True:
        stamps = _stamps(paths)
        records = [read_run(path) for path in paths]
        states = [record.status for record in records]
        if "running" not in states:
            return bool(written) and states == ["finished"] and target == paths[0] / REPORT
        if not written:
            print(f"report: {target}, for as long as the run goes on", file=sys.stderr)
        if stamps != written:
            write_report(records, target)
        written = stamps
        time.sleep(LOOK_EVERY)


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], str | None]:
    """The run folders, and the data that may stand behind them."""
    *rest, last = arguments
    if rest and not (Path(last) / "run.json").is_file():
        return [Path(name) for name in rest], last
    return [Path(name) for name in arguments], None


def write_report(records: Sequence[RunRecord], target: Path, sections: Sequence[Section] = ()) -> None:
    """The page of these runs, whole or not at all."""
    from residuum.cli.run_page import run_page
    from residuum.report.page import page_html

    write_text(target, page_html(run_page(records, sections)))


def _open(spec: str, classes: tuple[str, ...], **how: Any) -> "DataSet":
    from residuum.data.sources import open_data

    return open_data(spec, classes=classes, **how)


def insights_of(
    record: RunRecord, opened: "Callable[[tuple[str, ...]], DataSet]", *, device: str, needed: bool = False
) -> list[Section]:
    """What is to be seen inside the run's model, once there is one; or a section that says why nothing is.

    opened: gives the data under these classes. Raises UserError where images are `needed` and the data are not those
    that the run was measured on.
    """
    if record.split is None:
        return []
    try:
        return _insights(record, opened(record.classes), device)
    except UserError as reason:
        if needed:
            raise
        return [Section("Images", (f"None are shown: {reason}.",))]


def _insights(record: RunRecord, dataset: "DataSet", device: str) -> list[Section]:
    from residuum.cli.insights import Subject, insights
    from residuum.evaluation.answers import stored_name
    from residuum.weights import load

    split = str(record.split)
    answers = record.answers.get(split)
    if answers is None:
        raise UserError("what was said of each image was not kept")
    own = [stored_name(name) for name in answers.names]
    names = [stored_name(name) for name in dataset.held_out(split)[1].names]
    if names != own:
        missing = sorted(set(own) - set(names))
        first = f" ({len(missing):,} are missing, first {missing[0]})" if missing else ""
        raise UserError(
            f"{dataset.spec} has other {split} images than the run {record.path} was measured on{first}; "
            f"name {record.manifest['data']['spec']} as it was, divided as it was"
        )
    return insights(Subject(load(record.path), answers, dataset, split, device))


def _stamps(runs: Sequence[Path]) -> list[int]:
    """When the runs last wrote something."""
    files = [run / name for run in runs for name in ("run.json", "metrics.jsonl")]
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
