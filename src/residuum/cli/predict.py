"""`residuum predict`: what a model says about image files."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from residuum.cli.messages import print_first
from residuum.cli.options import BatchSize, Device, Engine, On, Precision, TrainedModel, Workers
from residuum.cli.startup import import_torch
from residuum.errors import UserError, counted, printable

if TYPE_CHECKING:
    from residuum.inference.bulk import Job, Outcome
    from residuum.inference.predict import Prediction
    from residuum.inference.shards import Shard

_MANY = "Very many files"


class Format(StrEnum):
    """How predictions are printed."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def predict(
    model: TrainedModel,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Image files, folders of them, quoted patterns; @FILE for a list of files, one a line; - for one on "
            "stdin.",
        ),
    ],
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Classes named for each file.")] = 3,
    form: Annotated[
        Format | None, typer.Option("--format", help="What is printed: table, the default, jsonl or csv.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write to a .jsonl, .csv or .parquet file, and go on with it where it was left.",
        ),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Write also what the classifier reads: an embedding of each image.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, whatever is in --out.", rich_help_panel=_MANY)
    ] = False,
    null: Annotated[
        bool,
        typer.Option("-0", "--null", help="Names in lists end with a NUL, as by find -print0.", rich_help_panel=_MANY),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Only the Ith of N shares of the files; torchrun gives each process its own.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    on: On = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            min=1,
            metavar="N",
            help="With --on: how many shares; by default one a GPU, or a node.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    batch_size: BatchSize = 64,
    workers: Workers = None,
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Name what is in image files, with probabilities.

    A file that cannot be read is reported and the rest go on; the exit code is then 1.

    Example: residuum predict runs/digits photos/ -o photos.csv
    """
    from residuum.inference.bulk import How, Job

    job = Job(
        model,
        tuple(paths),
        out or Path(),
        top,
        features,
        null,
        _shard(shard, on, out, paths),
        How(batch_size, workers, engine, device, precision),
    )
    if shards is not None and on is None:
        raise UserError("--shards is for --on ray; elsewhere name each share: --shard 1/8")
    if out is not None:
        _check_out(out, form, features)
    if on is None and not _is_export(model):
        import_torch()
    if out is None:
        _print_all(job, form or Format.TABLE)
    elif on is None:
        _conclude([_to_file(job, overwrite)], job)
    else:
        _conclude(_to_files_on_ray(job, shards, overwrite), job)


def _shard(text: str | None, on: str | None, out: Path | None, paths: Sequence[str]) -> "Shard":
    """The share that is this process's. Raises UserError for divisions that contradict one another."""
    from residuum.inference.paths import STDIN
    from residuum.inference.shards import Shard, parse_shard, shard_from_environment

    if on not in (None, "ray"):
        raise UserError(f"--on {on}; allowed: ray; without it, this machine predicts")
    launched = shard_from_environment()
    if text is not None and (on or launched):
        raise UserError(f"--shard {text}, but {'--on ray' if on else 'torchrun'} divides the files; leave it out")
    if on or launched:
        what = "--on ray" if on else "torchrun"
        if out is None:
            raise UserError(f"under {what} each share has a file of its own; name them with --out results.jsonl")
        if STDIN in paths:
            raise UserError(f"under {what} several processes read the list; write it to a file and name @FILE, not -")
    return launched or (Shard() if text is None else parse_shard(text))


def _is_export(model: Path) -> bool:
    from residuum.inference.exported import export_folder

    return export_folder(model) is not None


# To a file


def _check_out(out: Path, form: Format | None, features: bool) -> None:
    from residuum.inference.rows import check_suffix, refuse_csv_of_features

    suffix = check_suffix(out)
    if form is not None and f".{form}" != suffix:
        raise UserError(f"{out} is written as {suffix[1:]}, not {form}; leave out --format, or name another file")
    if out.is_dir():
        raise UserError(f"{out} is a folder; name the file to write with --out FILE")
    refuse_csv_of_features(features and suffix == ".csv")


def _to_file(job: "Job", overwrite: bool) -> "Outcome":
    from rich.console import Console

    from residuum.cli.predict_progress import Count, shown
    from residuum.inference.bulk import predict_into
    from residuum.inference.shards import shard_from_environment

    is_one_of_several = shard_from_environment() is not None  # beside one another, of which the first shows enough
    console = Console(stderr=True, quiet=is_one_of_several and job.shard.index > 1)
    try:
        with shown(Count(job.paths, job.null, job.shard), console) as look:
            return predict_into(job, overwrite=overwrite, look=look)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        raise


def _to_files_on_ray(job: "Job", shards: int | None, overwrite: bool) -> "list[Outcome]":
    from rich.console import Console

    from residuum.cli.predict_progress import Count, shown
    from residuum.inference.bulk import rows_done
    from residuum.inference.cluster import predict_on_ray

    with shown(Count(job.paths, job.null, job.shard), Console(stderr=True)) as look:
        return predict_on_ray(job, shards, overwrite=overwrite, look=lambda jobs: look(sum(map(rows_done, jobs))))


def _conclude(outcomes: "Sequence[Outcome]", job: "Job") -> None:
    """Say what was written where, name the unreadable files, and leave with code 1 if there are any."""
    for outcome in outcomes:
        before = f", {outcome.before:,} of them before" if outcome.before else ""
        line = f"{counted(outcome.rows, 'file')} in {outcome.file}{before}; {outcome.engine}"
        print(printable(line, longest=None), file=sys.stderr)
    rows, unreadable = (sum(getattr(one, name) for one in outcomes) for name in ("rows", "unreadable"))
    _leave(rows, unreadable, [line for one in outcomes for line in one.named], job.shard)


# To stdout


def _print_all(job: "Job", form: Format) -> None:
    from residuum.inference.deployed import deploy
    from residuum.inference.paths import expand_paths
    from residuum.inference.predict import predict as predicted
    from residuum.inference.rows import csv_head, csv_line, json_line

    if job.features and form is not Format.JSONL:
        raise UserError("--features are for programs; add --format jsonl, or --out FILE.parquet")
    deployed = deploy(job.model, engine=job.how.engine, device=job.how.device, precision=job.how.precision)
    top, files = min(job.top, len(deployed.classes)), job.shard.of(expand_paths(job.paths, null=job.null))
    size, workers = job.how.batch_size, job.how.workers
    found = predicted(deployed, files, top=top, batch_size=size, workers=workers, features=job.features)
    tally, stream = Tally(), sys.stdout
    predictions = tally.watch(found, job)
    if form is Format.TABLE:
        width = max(len(printable(name)) for name in deployed.classes)
        write_table(map(_printable, predictions), stream, top=top, width=width)
    elif form is Format.JSONL:
        stream.writelines(map(json_line, predictions))
    else:
        stream.write(csv_head(top))
        shown = map(_printable, predictions) if stream.isatty() else predictions
        stream.writelines(csv_line(prediction, top) for prediction in shown)
    done = tally.progress
    _leave(done.rows, done.unreadable, done.named, job.shard)


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
    """Counts the files that pass by, and remembers the unreadable ones."""

    def __init__(self) -> None:
        from residuum.inference.journal import Progress

        self.progress = Progress()

    def watch(self, predictions: "Iterable[Prediction]", job: "Job") -> "Iterator[Prediction]":
        """The same predictions, counted; where they are piped on, a terminal shows how far they are."""
        counted_ones = map(self._count, predictions)
        return self._shown(counted_ones, job) if sys.stderr.isatty() and not sys.stdout.isatty() else counted_ones

    def _count(self, prediction: "Prediction") -> "Prediction":
        from residuum.inference.bulk import counted_on

        self.progress = counted_on(self.progress, [prediction])
        return prediction

    def _shown(self, predictions: "Iterable[Prediction]", job: "Job") -> "Iterator[Prediction]":
        from rich.console import Console

        from residuum.cli.predict_progress import Count, shown

        with shown(Count(job.paths, job.null, job.shard), Console(stderr=True)) as look:
            for prediction in predictions:
                look(self.progress.rows)
                yield prediction


def _leave(files: int, failures: int, named: Sequence[str], shard: "Shard") -> None:
    """Name the unreadable files on stderr and leave with code 1 if there are any.

    Not under torchrun: it would end the processes that are still at their shares.
    """
    from residuum.inference.shards import shard_from_environment

    is_share = shard.count > 1
    if not files and not is_share:
        raise UserError("no file was named on stdin; write one a line, or with --null end each with a NUL")
    if not failures:
        return
    print_first("unreadable", named, failures)
    if failures == files and not is_share:
        raise UserError(f"none of the {files:,} files could be read; see the reasons above")
    if shard_from_environment() is None:
        raise typer.Exit(1)
