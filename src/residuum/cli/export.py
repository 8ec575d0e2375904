"""`residuum export`: a trained model as a folder for an engine to compute, without PyTorch."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residuum.cli import options
from residuum.cli.messages import print_notes, printable_table
from residuum.cli.startup import import_torch
from residuum.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from residuum.data.sources import DataSet
    from residuum.inference.exported import Target
    from residuum.weights import Classifier

_INT8 = "In 8-bit integers"


class To(StrEnum):
    """What can be written."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"
    HUB = "hub"


_TARGETS: "Mapping[To, Target]" = {To.ONNX: "onnx", To.OPENVINO: "openvino", To.TORCH: "torch"}


def export(
    model: options.TrainedModel,
    to: Annotated[To, typer.Option("--to", metavar="KIND", help="onnx, openvino, torch or hub.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="The labelled images to check it on; by default the run's own."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="The folder to write; by default MODEL-KIND, beside MODEL."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise weights and activations to 8 bits.", rich_help_panel=_INT8)
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="DATA",
            help="The images that say how large values get; by default the training images of --data.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    calibration_images: Annotated[
        int,
        typer.Option(
            "--calibration-images", min=1, metavar="N", help="How many of them are taken.", rich_help_panel=_INT8
        ),
    ] = 300,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-float",
            metavar="LAYER",
            help="A layer, or a stage, to leave in float32; may be repeated.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop", min=0.0, metavar="X", help="Points of accuracy that may be lost.", rich_help_panel=_INT8
        ),
    ] = 0.5,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
    as_json: options.AsJson = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or PyTorch alone, checked against the run on real images.

    Or, with --to hub, for huggingface_hub to upload, with a model card.

    Example: residuum export runs/photos --to onnx --int8 -o photos-int8
    """
    _check_arguments(to, int8, calibrate, keep_float)
    import_torch()
    beside = model if model.name not in ("", "..") else model.resolve()
    folder = out or Path(f"{beside}-{to}{'-int8' if int8 else ''}")
    if to is To.HUB:
        _write_for_hub(model, folder, as_json)
        return
    from residuum.data.sources import open_data
    from residuum.inference import export as inference
    from residuum.weights import load

    classifier = load(model)
    inference.refuse_others_folder(folder)
    named = partial(open_data, root=root, classes=classifier.classes, val_fraction=val_fraction, split_seed=split_seed)
    tested = _tested_on(classifier, data, calibrate, named)
    how = None
    if int8:
        ranges = named(calibrate) if calibrate else tested
        how = inference.Int8(ranges, calibration_images, tuple(keep_float or ()), max_drop)
    print_notes([*tested.notes, *_notes_on(classifier, tested)])
    found = inference.export(classifier, folder, _TARGETS[to], tested, how)
    _print(folder, found.checks, as_json)


def _check_arguments(to: To, int8: bool, calibrate: str | None, keep_float: list[str] | None) -> None:
    if int8 and to is To.HUB:
        raise UserError("--int8 is for --to onnx and --to openvino: the Hub's folder holds the weights as trained")
    if int8 and to is To.TORCH:
        raise UserError(
            "--int8 is for --to onnx and --to openvino: PyTorch has no stable form of it; take one of those"
        )
    if not int8 and (calibrate or keep_float):
        given = "--calibrate" if calibrate else "--keep-float"
        raise UserError(f"{given} is for --int8; add it, or leave out {given}")


def _write_for_hub(model: Path, folder: Path, as_json: bool) -> None:
    from residuum.cli.hub import CARD, write_hub_folder
    from residuum.report.terminal import print_json

    write_hub_folder(model, folder)
    if as_json:
        print_json({"export": str(folder)})
        return
    print(f"export    {folder}")
    print(f"card      {folder / CARD}: read it, and name a licence")
    print(f"upload    hf upload OWNER/NAME {folder}")


def _tested_on(
    classifier: "Classifier", spec: str | None, otherwise: str | None, named: "Callable[[str], DataSet]"
) -> "DataSet":
    """The data named, else those that the model was trained on, where they can still be opened, else `otherwise`."""
    if spec is not None:
        return named(spec)
    own = classifier.provenance.get("data")
    try:
        if not isinstance(own, str):
            raise UserError("the model does not say what they were")
        return named(own)
    except UserError as error:
        if otherwise is not None:
            return named(otherwise)
        raise UserError(f"the data of its training cannot be opened ({error}); name some with --data") from None


def _notes_on(classifier: "Classifier", tested: "DataSet") -> "Iterator[str]":
    from residuum.inference.calibrate import is_divided_otherwise

    if is_divided_otherwise(classifier, tested):
        yield f"{tested.spec} changed since training or is divided otherwise: the model may have seen these images"


def _print(folder: Path, checks: "Mapping[str, Any]", as_json: bool) -> None:
    from residuum.inference.description import checks_tables
    from residuum.report.terminal import print_json, print_table

    if as_json:
        print_json({"export": str(folder), "checks": checks})
        return
    for table in checks_tables(checks):
        print_table(printable_table(table))
        print()
    print(f"export    {folder}")
    print(f"describe  residuum describe {folder}")
    print(f"predict   residuum predict {folder} IMAGE...")
