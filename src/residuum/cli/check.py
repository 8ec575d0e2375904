"""`residuum check`: the doctor of a data set."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.messages import print_notes, printable_table
from residuum.cli.startup import import_torch
from residuum.errors import printable

if TYPE_CHECKING:
    from residuum.data.doctor import DataReport


def check(
    data: options.Data,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="Draw images of each class into a PNG.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option("--samples", metavar="DIR", help="Write a held-out image of each class, to predict."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Look a data set over: counts, sizes, damaged files, duplicates, balance.

    Every image is read once. What is worth fixing stands in the last lines.

    Example: residuum check photos/ --sheet photos.png
    """
    import_torch()
    from residuum.cli.images import write_samples, write_sheet
    from residuum.data.doctor import check_data
    from residuum.data.sources import open_data
    from residuum.report.terminal import print_json

    dataset = open_data(data, root=root, val_fraction=val_fraction, split_seed=split_seed)
    if sheet is not None:
        write_sheet(dataset, sheet)
        print(f"sheet: {sheet}", file=sys.stderr)
    if samples is not None:
        print(f"samples: {len(write_samples(dataset, samples))} in {samples}", file=sys.stderr)
    report = check_data(dataset)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: "DataReport") -> None:
    from residuum.report.terminal import print_table

    print_notes(report.notes)
    tables = (report.counts, report.sizes, report.modes, report.channels, report.bad_files, report.duplicates)
    for table in tables:
        if table.rows:
            print_table(printable_table(table))
            print()
    for sentence in report.verdict:
        print(printable(sentence, longest=None))
