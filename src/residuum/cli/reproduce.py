"""`residuum reproduce`: a published table or figure, trained whole, beside what was printed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.startup import import_torch
from residuum.cli.study import answer, chosen_maker, overrides_of
from residuum.errors import UserError, unknown_name
from residuum.records import Table

if TYPE_CHECKING:
    from residuum.studies.reproduce import Reproduction
    from residuum.studies.study import Plan


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The table or figure; without a name, they are listed.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="As for train; by default cifar10; ImageNet has to be named."),
    ] = None,
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
) -> None:
    """Repeat a published result whole: first what differs and what it costs, then published against measured.

    What is stopped goes on where it was; networks that studies at paper scale share are trained once.

    Example: residuum reproduce table6 --dry-run
    """
    if name is None:
        _list(as_json)
        return
    import_torch()
    from residuum.studies.engine import prepare
    from residuum.studies.reproduce import REPRODUCTIONS

    if name not in REPRODUCTIONS:
        raise unknown_name("reproduction", name, REPRODUCTIONS, "residuum reproduce lists them all")
    chosen = REPRODUCTIONS[name]
    spec = data or chosen.data
    if spec is None:
        raise UserError(f"{name} is a result on ImageNet, which cannot be downloaded; name its folder after {name}")
    prepared = prepare(
        chosen.study,
        spec,
        scale="paper",
        seeds=seeds,
        out=out,
        processes=nproc,
        overrides=overrides_of(changes, device, precision),
        root=None if root is None else str(root),
    )
    maker = chosen_maker(prepared, jobs, nproc, on)
    for line in _differences(chosen, prepared.plan, spec, changes or [], nproc):
        print(f"differs: {line}", file=sys.stderr)
    answer(prepared, maker, dry_run=dry_run, as_json=as_json)


def _list(as_json: bool) -> None:
    """What can be repeated."""
    import_torch()
    from residuum.report.terminal import print_json, print_table
    from residuum.studies.reproduce import REPRODUCTIONS

    rows = tuple(
        (name, one.study.question, one.study.source, one.data or "to be named") for name, one in REPRODUCTIONS.items()
    )
    table = Table("", ("name", "question", "source", "data"), rows)
    if as_json:
        print_json({"reproductions": table.records()})
    else:
        print_table(table)


def _differences(chosen: "Reproduction", plan: "Plan", spec: str, changes: list[str], nproc: int) -> list[str]:
    from residuum.studies.reproduce import settled

    lines = [*chosen.differs, *settled(plan)]
    if nproc > 1:
        lines[0] = f"{nproc} processes share each batch, and each normalises over its part of it"
    if chosen.data is not None and spec != chosen.data:
        lines.append(f"{spec} in the place of {chosen.data}, unless they are the same images")
    return [*lines, *(f"--set {change}" for change in changes)]
