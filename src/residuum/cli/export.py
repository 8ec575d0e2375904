"""`residuum export`: a trained model as a folder for an engine to compute, without PyTorch."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residuum.cli import options
from residuum.cli.messages import print_notes, printable_table
from residuum.cli.startup import import_torch
from residuum.errors import UserError
from residuum.hub import is_on_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from residuum.data.sources import DataSet
    from residuum.inference.exported import Target
    from residuum.weights import Classifier

_INT8 = "In 8-bit integers"
_OPTIONS = {"count": "calibration-images", "kept": "keep-float"}  # that are called otherwise than what they set


class To(StrEnum):
    """What can be written."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"
    HUB = "hub"


def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A run folder, its model/ folder, a folder in the Hub layout, or hf:owner/name."
        ),
    ],
    to: Annotated[To, typer.Option("--to", metavar="KIND", help="onnx, openvino, torch or hub.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="The labelled images to check it on; by default the run's own."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="DIR", help="The folder to write; by default MODEL-KIND, beside MODEL, or here."
        ),
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
        int | None,
        typer.Option(
            "--calibration-images",
            min=1,
            metavar="N",
            help="How many of them are taken; by default 300.",
            rich_help_panel=_INT8,
        ),
    ] = None,
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
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            metavar="X",
            help="Points of accuracy that may be lost; by default 0.5.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    root: options.Root = None,
    val_fraction: options.ModelValFraction = None,
    split_seed: options.ModelSplitSeed = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or PyTorch alone, checked against the run on real images.

    Or, with --to hub, for huggingface_hub to upload, with a model card.

    Example: residuum export runs/photos --to onnx --int8 -o photos-int8
    """
    for_int8 = {"count": calibration_images, "kept": tuple(keep_float or ()), "max_drop": max_drop}
    for_data = {"root": root, "val_fraction": val_fraction, "split_seed": split_seed}
    _check_arguments(to, int8, {"calibrate": calibrate, **for_int8}, {"data": data, **for_data})
    import_torch()
    folder = out or _folder_of(model, f"{to}-int8" if int8 else to)
    if to is To.HUB:
        _write_for_hub(model, folder, as_json)
        return
    from residuum.data.sources import open_data
    from residuum.inference import export as inference
    from residuum.weights import load

    target = _target(to)
    inference.refuse_request(folder, target, int8)
    classifier = load(model)
    how_opened = {"classes": classifier.classes} | _given(_division(classifier)) | _given(for_data)

    def named(spec: str) -> "DataSet":
        return open_data(spec, **how_opened)

    tested = _tested_on(classifier, data, calibrate, named)
    how = inference.Int8(named(calibrate) if calibrate else tested, **_given(for_int8)) if int8 else None
    print_notes(tested.notes)
    found = inference.export(classifier, folder, target, tested, how)
    _print(folder, found.checks, as_json)


def _check_arguments(to: To, int8: bool, for_int8: "Mapping[str, Any]", for_data: "Mapping[str, Any]") -> None:
    if int8 and to is To.HUB:
        raise UserError("--int8 is for --to onnx and --to openvino: the Hub's folder holds the weights as trained")
    if not int8 and (given := _given(for_int8)):
        raise UserError(f"{_option(given)} is for --int8; add it, or leave out {_option(given)}")
    if to is To.HUB and (given := _given(for_data)):
        raise UserError(
            f"{_option(given)} is for --to onnx, openvino and torch, which are checked on images; leave it out"
        )


def _given(arguments: "Mapping[str, Any]") -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value not in (None, ())}


def _option(given: "Mapping[str, Any]") -> str:
    name = next(iter(given))
    return f"--{_OPTIONS.get(name, name.replace('_', '-'))}"


def _folder_of(model: Path, kind: str) -> Path:
    """MODEL-KIND, beside the model; of one on the Hub in the working folder, without owner and revision."""
    if is_on_hub(model):
        return Path(f"{Path(str(model).removeprefix('hf:').partition('@')[0]).name}-{kind}")
    return Path(f"{model if model.name not in ('', '..') else model.resolve()}-{kind}")


def _target(to: To) -> "Target":
    from residuum.inference.exported import TARGETS

    return next(target for target in TARGETS if target == to)


def _division(classifier: "Classifier") -> dict[str, Any]:
    """How the data of its training were divided, as far as it says so."""
    from residuum.model_config import SPLIT_SEED, VAL_FRACTION

    return {name: classifier.provenance.get(name) for name in (VAL_FRACTION, SPLIT_SEED)}


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
