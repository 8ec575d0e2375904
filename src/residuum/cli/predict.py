"""`residuum predict`: what a model says about image files."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from residuum.cli.messages import NAMED, print_first
from residuum.cli.options import BatchSize, Device, Precision, TrainedModel, Workers
from residuum.cli.startup import import_torch
from residuum.errors import UserError, printable

if TYPE_CHECKING:
    from residuum.inference.predict import Prediction


class Format(StrEnum):
    """How predictions are written."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def predict(
    model: TrainedModel,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Image files, folders of them, or quoted patterns.")
    ],
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Classes named for each file.")] = 3,
    form: Annotated[Format, typer.Option("--format", help="table, jsonl or csv.")] = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write to a file, not to the terminal.")
    ] = None,
    batch_size: BatchSize = 64,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Name what is in image files, with probabilities.

    A file that cannot be read is reported and the rest go on; the exit code is then 1.

    Example: residuum predict runs/digits 'photos/*.jpg' --format csv -o photos.csv
    """
    import_torch()
    from residuum.inference import predict as inference
    from residuum.weights import load

    classifier = load(model)
    top = min(top, len(classifier.classes))
    predictions = inference.predict(
        classifier,
        inference.expand_paths(paths),
        top=top,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
    )
    tally = Tally(visible=out is not None or not sys.stdout.isatty())
    with _opened(out) as stream:
        watched = tally.watch(predictions)
        if form is Format.JSONL:
            inference.write_jsonl(watched, stream)
        elif form is Format.CSV:
            inference.write_csv(map(_printable, watched) if stream.isatty() else watched, stream, top=top)
        else:
            width = max(len(printable(name)) for name in classifier.classes)
            write_table(map(_printable, watched), stream, top=top, width=width)
    tally.report()


def _opened(out: Path | None) -> AbstractContextManager[TextIO]:
    return (
        nullcontext(sys.stdout)
        if out is None
        else out.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    )


def write_table(predictions: "Iterable[Prediction]", stream: TextIO, *, top: int, width: int) -> None:
    """One aligned line a file, as it comes: the likeliest classes with their probabilities, then the file."""
    column = max(width + 9, len("unreadable"))
    header = "".join(f"{_rank(rank):<{column}}  " for rank in range(1, top + 1))
    print(f"{header}file", file=stream)
    for prediction in predictions:
        if prediction.error is not None:
            cells = ["unreadable", *[""] * (top - 1)]
        else:
            pairs = zip(prediction.labels, prediction.probabilities, strict=True)
            cells = [f"{label:<{width}}  {100 * probability:5.1f} %" for label, probability in pairs]
        print("".join(f"{cell:<{column}}  " for cell in cells) + str(prediction.path), file=stream)


def _printable(prediction: "Prediction") -> "Prediction":
    """The prediction with names that a terminal only shows, and does not obey."""
    path = Path(printable(str(prediction.path), longest=None))
    return replace(prediction, path=path, labels=tuple(map(printable, prediction.labels)))


def _rank(rank: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(rank, f"{rank}th")


class Tally:
    """Counts the files that pass by, remembers the unreadable ones, and shows how far it is."""

    def __init__(self, visible: bool) -> None:
        self.visible = visible
        self.files = 0
        self.failures = 0
        self.named: list[str] = []

    def watch(self, predictions: "Iterable[Prediction]") -> "Iterator[Prediction]":
        """The same predictions, counted."""
        counted = map(self._count, predictions)
        return _with_progress(counted) if self.visible and sys.stderr.isatty() else counted

    def _count(self, prediction: "Prediction") -> "Prediction":
        self.files += 1
        if prediction.error is not None:
            self.failures += 1
            if len(self.named) < NAMED:
                self.named.append(f"{prediction.path}: {prediction.error}")
        return prediction

    def report(self) -> None:
        """Name the unreadable files on stderr and leave with code 1 if there are any."""
        if not self.failures:
            return
        print_first("unreadable", self.named, self.failures)
        if self.failures == self.files:
            raise UserError(f"none of the {self.files:,} files could be read; see the reasons above")
        raise typer.Exit(1)


def _with_progress(predictions: "Iterable[Prediction]") -> "Iterator[Prediction]":
    """The same predictions, and on stderr how many there were."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed:,.0f} files"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("files", total=None)
        for prediction in predictions:
            progress.advance(task)
            yield prediction
