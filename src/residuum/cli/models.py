"""`residuum models` and `residuum describe`: the networks there are, and what is in one."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli.messages import printable_table
from residuum.cli.options import AsJson
from residuum.cli.startup import import_torch
from residuum.errors import UserError

if TYPE_CHECKING:
    from torch import nn

INPUT_FORM = re.compile(r"(\d+)x(\d+)x(\d+)")


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A name, or part of one with * for the rest.")
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """List the networks: name, parameters, multiply-adds, paper.

    Example: residuum models 'resnet*'
    """
    import_torch()
    from residuum.models.summary import models_table
    from residuum.report.terminal import print_json, print_table

    table = models_table(pattern)
    if as_json:
        print_json({"models": table.records()})
    else:
        print_table(table)


def describe(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A network's name, a trained model (folder or hf:owner/name), or an export."
        ),
    ],
    input_size: Annotated[
        str | None,
        typer.Option("--input", metavar="CxHxW", help="The input to count for; without it, the paper's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a network stage by stage: output size, parameters, multiply-adds. Of an export: its graph and its checks.

    Example: residuum describe resnet50 --input 3x224x224
    """
    from residuum.inference.exported import export_folder

    if (folder := export_folder(Path(model))) is not None:
        _describe_export(folder, input_size, as_json)
        return
    import_torch()
    from residuum.hub import is_on_hub
    from residuum.models.summary import summarise
    from residuum.report.terminal import print_json, print_table

    wanted = _parse_input(input_size) if input_size is not None else None
    is_trained = is_on_hub(model) or Path(model).is_dir()
    network, size = _trained_network(Path(model)) if is_trained else _new_network(model, wanted)
    size = wanted or size
    summary = summarise(network, size)
    if as_json:
        counts = {"parameters": summary.parameters, "multiply_adds": summary.multiply_adds}
        print_json({"model": model, "input": size, **counts, "stages": summary.stages.records()})
    else:
        print_table(replace(summary.stages, title=f"{model} on {'x'.join(map(str, size))}"))


def _describe_export(folder: Path, input_size: str | None, as_json: bool) -> None:
    from residuum.inference.description import read_graph, tables
    from residuum.inference.exported import read_exported
    from residuum.report.terminal import print_json, print_table

    if input_size is not None:
        raise UserError(f"{folder} is an export, whose input has one size; leave out --input")
    exported = read_exported(folder)
    if as_json:
        about = {"model": str(exported.file), "to": exported.target, "number": exported.number}
        facts = {"architecture": exported.architecture, "classes": exported.classes}
        handling = {"preprocessing": exported.preprocessing.to_config(), "temperature": exported.temperature}
        past = {"provenance": exported.provenance, "checks": exported.checks}
        print_json({**about, **facts, "graph": read_graph(exported), **handling, **past})
        return
    for number, table in enumerate(tables(exported)):
        print("\n" * bool(number), end="")
        print_table(printable_table(table))


def _parse_input(text: str) -> tuple[int, int, int]:
    match = INPUT_FORM.fullmatch(text)
    if match is None or "0" in match.groups():
        raise UserError(f"--input {text!r} is no input size; write channels, height and width: 3x224x224")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def _trained_network(folder: Path) -> "tuple[nn.Module, tuple[int, int, int]]":
    from residuum.weights import load

    classifier = load(folder)
    handling = classifier.preprocessing
    return classifier.network, (handling.channels, handling.size, handling.size)


def _new_network(name: str, wanted: tuple[int, int, int] | None) -> "tuple[nn.Module, tuple[int, int, int]]":
    from residuum.models.catalogue import create_skeleton
    from residuum.models.summary import paper_input

    size = wanted or paper_input(name)
    return create_skeleton(name, in_channels=size[0]), size
