"""`residuum study`: a question about depth, and the runs that answer it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.messages import printable_table
from residuum.cli.report import REPORT
from residuum.cli.startup import import_torch
from residuum.errors import UserError, counted, unknown_name
from residuum.files import read_json, write_text
from residuum.records import Table

if TYPE_CHECKING:
    from residuum.studies.engine import Prepared, StudyResult
    from residuum.studies.makers import Maker


def study(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The study; without a name, they are listed.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="As for train; by default digits (smoke), fashion-mnist (small) or cifar10 (paper).",
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            metavar="NAME",
            help="smoke: seconds; small: minutes to an hour on a CPU; paper: as published.",
        ),
    ] = "small",
    seeds: options.Seeds = None,
    jobs: options.Jobs = None,
    out: options.StudiesFolder = Path("studies"),
    on: options.On = None,
    nproc: options.NProc = 1,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    changes: options.Changes = None,
    device: options.RunDevice = None,
    precision: options.RunPrecision = None,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
) -> None:
    """Answer a question about depth by a grid of runs: a table, figures, error bars over seeds, and a verdict.

    A study that is stopped goes on where it was; what it shares with another is run once.

    Example: residuum study degradation --scale smoke
    """
    if name is None:
        list_studies(as_json)
        return
    import_torch()
    from residuum.studies import STUDIES
    from residuum.studies.engine import SCALES, prepare

    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES, "residuum study lists them all")
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    prepared = prepare(
        STUDIES[name],
        data,
        scale=scale,
        seeds=seeds,
        out=out,
        processes=nproc,
        overrides=overrides_of(changes, device, precision),
        root=None if root is None else str(root),
        val_fraction=val_fraction,
        split_seed=split_seed,
    )
    maker = chosen_maker(prepared, jobs, nproc, on)
    answer(prepared, maker, dry_run=dry_run, as_json=as_json)


def answer(prepared: "Prepared", maker: "Maker", *, dry_run: bool, as_json: bool) -> None:
    """Say what it costs; unless that is all that was asked, make the members and tell what was found."""
    introduce(prepared, with_time=dry_run or prepared.scale != "smoke", as_json=dry_run and as_json)
    if not dry_run:
        tell(carry_out(prepared, maker), as_json)


def overrides_of(changes: list[str] | None, device: str | None, precision: str | None) -> list[str]:
    """What --set, --device and --precision change in every arm."""
    flags = {"device": device, "precision": precision}
    return [f"{field}={value}" for field, value in flags.items() if value is not None] + (changes or [])


def list_studies(as_json: bool = False) -> None:
    """What can be asked."""
    import_torch()
    from residuum.report.terminal import print_json, print_table
    from residuum.studies import STUDIES

    rows = tuple((one.name, one.question, one.source) for one in STUDIES.values())
    table = Table("", ("study", "question", "source"), rows)
    if as_json:
        print_json({"studies": table.records()})
    else:
        print_table(table)


def chosen_maker(prepared: "Prepared", jobs: int | None, nproc: int, on: str | None) -> "Maker":
    """Where the members are made, from the flags. Raises UserError for flags that do not go together."""
    from residuum.hardware import choose_device
    from residuum.studies.makers import here, on_ray, side_by_side, usual_jobs, with_torchrun

    if on not in (None, "ray"):
        raise UserError(f"--on {on}; allowed: ray; without it, members run on this machine")
    if on == "ray" and (nproc > 1 or jobs is not None):
        raise UserError("--on ray shares out the members by itself; leave out --nproc and -j")
    if nproc > 1 and (jobs or 1) > 1:
        raise UserError(f"--nproc {nproc} trains one member at a time; leave out -j {jobs}")
    if on == "ray":
        return on_ray
    if nproc > 1:
        return with_torchrun(nproc)
    devices = {member.run.device for member, _ in prepared.members if member.run is not None}
    for device in devices:
        choose_device(device)  # a wrong one is refused before anything runs
    number = min(jobs or usual_jobs(devices), len(prepared.missing))
    return here if number <= 1 else side_by_side(number, devices)


def introduce(prepared: "Prepared", with_time: bool, as_json: bool) -> None:
    """Say on stderr what is about to happen and what it costs; `with_time` after some seconds of trying.

    as_json: on stdout, as one object.
    """
    from residuum.report.terminal import print_json
    from residuum.studies.cost import cost, timed

    study, missing = prepared.study, len(prepared.missing)
    images = ", ".join(f"{count:,} {split}" for split, count in prepared.counts.items())
    made = f", {len(prepared.members) - missing} of them made before" if missing < len(prepared.members) else ""
    lines = [
        f"study: {study.name}: {study.question} ({study.source})",
        f"data: {prepared.data}: {images} images",
        f"members: {len(prepared.plan.arms)} arms x {counted(prepared.plan.seeds, 'seed')}{made}",
    ]
    found = timed(cost(prepared)) if with_time else cost(prepared)
    if as_json:
        record = {
            "study": study.name,
            "data": prepared.data,
            "images": prepared.counts,
            "members": len(prepared.members),
        }
        print_json({**record, "missing": missing, "cost": found})
        return
    for line in (*lines, *found.lines()):
        print(line, file=sys.stderr)


def carry_out(prepared: "Prepared", maker: "Maker") -> "StudyResult":
    """Make the members, showing how far they are; then the answer and its page."""
    from rich.console import Console

    from residuum.report.page import page_html
    from residuum.studies.engine import conclude, make_members
    from residuum.studies.page import study_page
    from residuum.studies.progress import shown
    from residuum.training.interruption import Interrupted

    try:
        with shown(prepared, Console(stderr=True)) as look:
            make_members(prepared, maker, look)
    except Interrupted as interruption:
        print("stopped; everything is saved, the same command goes on from there", file=sys.stderr)
        raise typer.Exit(interruption.exit_code) from None
    result = conclude(prepared)
    write_text(result.folder / REPORT, page_html(study_page(result, ("residuum", *sys.argv[1:]))))
    return result


def tell(result: "StudyResult", as_json: bool) -> None:
    """The answer on stdout."""
    from residuum.report.terminal import print_json, print_table
    from residuum.studies.engine import RECORD

    if as_json:
        print_json(read_json(result.folder / RECORD))
        return
    print_table(printable_table(result.finding.table))
    for note in result.finding.notes:
        print(f"note: {note}")
    print()
    print(result.finding.verdict)
    print()
    print(f"page    {result.folder / REPORT}")
