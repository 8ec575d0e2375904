"""`residuum compare`: finished runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from residuum.cli import options
from residuum.cli.messages import print_notes, printable_table
from residuum.cli.run_records import RunRecord, read_run
from residuum.cli.startup import import_torch
from residuum.errors import UserError
from residuum.records import Cell, Table


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; the first is compared with.")],
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="val or test; without it, test, else val.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare runs by what they scored when they ended: errors, differences with intervals, and what else differs.

    Example: residuum compare runs/resnet20 runs/plain20
    """
    import_torch()
    from residuum.report.terminal import print_json, print_table

    records = [read_run(path) for path in runs]
    scores, settings = scores_table(records, split), settings_table(records)
    print_notes([fault for record in records for fault in record.faults])
    if as_json:
        print_json({"scores": scores.records(), "settings": settings.records(), "notes": scores.notes})
        return
    print_table(printable_table(scores))
    if settings.rows:
        print()
        print_table(printable_table(settings))


STATUS = {
    "running": "it goes on; wait for its end, or look at it with residuum report --watch",
    "killed": "it ended without a word; go on with residuum train --resume",
    "interrupted": "it was interrupted; go on with residuum train --resume",
    "failed": "it has failed; see failure in its run.json, and go on with residuum train --resume",
}
"""What a run without results is told of, by its status."""


def scores_table(records: Sequence[RunRecord], split: str | None = None) -> Table:
    """What the runs scored, and their differences to the first. Raises UserError for a run without results."""
    from residuum.evaluation.comparison import Contender
    from residuum.evaluation.comparison import compare as compare_contenders

    contenders = []
    for record in records:
        measured = split or record.split
        if measured is None:
            raise UserError(f"the run {record.path} has no results: {STATUS.get(record.status, record.status)}")
        if measured not in record.evaluations:
            had = ", ".join(record.evaluations) or "none"
            raise UserError(f"the run {record.path} was not measured on {measured!r}; it was on: {had}")
        name = str(record.path)
        contenders.append(Contender(name, record.evaluations[measured], record.answers.get(measured)))
    splits = dict.fromkeys(split or record.split or "" for record in records)
    return compare_contenders(contenders, ", ".join(splits))


def settings_table(records: Sequence[RunRecord]) -> Table:
    """The fields of the runs' configurations that are not the same in all of them."""
    flat = [flattened(record.manifest["run"]) for record in records]
    names = dict.fromkeys(name for one in flat for name in one)
    differing = [name for name in names if len({str(one.get(name)) for one in flat}) > 1]
    rows = tuple((name, *(cell(one.get(name)) for one in flat)) for name in differing)
    return Table("What differs in the settings", ("field", *(str(record.path) for record in records)), rows)


def flattened(values: object, prefix: str = "") -> dict[str, object]:
    """A nest of dicts as one: {"optimizer.lr": 0.1}."""
    if not isinstance(values, dict):
        return {prefix: values}
    parts = (flattened(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in values.items())
    return {name: value for part in parts for name, value in part.items()}


def cell(value: object) -> Cell:
    """A setting in a table: text as it is, anything else as JSON shows it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(str(cell(part)) for part in value)
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
