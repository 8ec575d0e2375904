"""`residuum report`: runs as one page to look at."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.run_records import RunRecord, read_run
from residuum.cli.startup import import_torch
from residuum.errors import UserError
from residuum.files import write_text

if TYPE_CHECKING:
    from residuum.data.sources import DataSet
    from residuum.records import Section

REPORT = "report.html"
LOOK_EVERY = 5.0  # seconds


def report(
    runs_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [DATA]",
            help="Run folders; with the data that they were trained on, as for train, also pictures of mistakes.",
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
) -> None:
    """Write one HTML file on runs: curves, scores, confusion, calibration, mistakes, settings.

    It needs no network and opens from a disk.

    Example: residuum report runs/photos photos/
    """
    import_torch()
    from residuum.data.sources import open_data

    paths, data = split_arguments(runs_and_data)
    target = out or (paths[0] / REPORT if len(paths) == 1 else Path(REPORT))
    if target.is_dir():
        raise UserError(f"{target} is a folder; name the file to write with -o FILE")

    def opened(record: RunRecord) -> "DataSet | None":
        if data is None:
            return None
        return open_data(data, root=root, classes=record.classes, val_fraction=val_fraction, split_seed=split_seed)

    while True:
        stamps = _stamps(paths)
        records = [read_run(path) for path in paths]
        sections = [part for record in records for part in insights_of(record, opened(record), len(records) > 1)]
        write_report(records, target, sections)
        print(f"report: {target}", file=sys.stderr if watch else sys.stdout)
        if not watch or not any(record.is_running for record in records):
            return
        while _stamps(paths) == stamps:
            time.sleep(LOOK_EVERY)


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], str | None]:
    """The run folders, and the data that may stand behind them."""
    *rest, last = arguments
    is_run = (Path(last) / "run.json").is_file()
    if rest and not is_run:
        return [Path(name) for name in rest], last
    return [Path(name) for name in arguments], None


def write_report(records: Sequence[RunRecord], target: Path, sections: "Sequence[Section]" = ()) -> None:
    """The page of these runs, whole or not at all."""
    from residuum.cli.run_page import run_page
    from residuum.report.page import page_html

    write_text(target, page_html(run_page(records, sections)))


def insights_of(record: RunRecord, dataset: "DataSet | None", named: bool = False) -> "list[Section]":
    """What is to be seen inside the run's model; nothing without data, or before there is a model.

    Raises UserError where the data are not those that the run was measured on.
    """
    from residuum.cli.insights import Subject, insights
    from residuum.evaluation.answers import Answers
    from residuum.weights import load

    answers = record.answers.get(record.split or "")
    if dataset is None or record.split is None or not isinstance(answers, Answers):
        return []
    _, split = dataset.held_out(record.split)
    if list(split.names) != list(answers.names):
        raise UserError(
            f"{dataset.spec} has other {record.split} images than the run {record.path} was measured on; "
            f"name {record.manifest['data']['spec']}, divided as it was"
        )
    sections = insights(Subject(load(record.path), answers, split, dataset.splits.get("train")))
    return [replace(one, title=f"{record.name}: {one.title}") for one in sections] if named else sections


def _stamps(runs: Sequence[Path]) -> list[int]:
    """When the runs last wrote something."""
    files = [run / name for run in runs for name in ("run.json", "metrics.jsonl")]
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
