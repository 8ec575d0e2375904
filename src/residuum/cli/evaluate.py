"""`residuum evaluate`: what trained models are worth on data."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.messages import print_first, print_notes
from residuum.cli.results import FEW_CLASSES, print_results, print_results_as_json
from residuum.cli.startup import import_torch
from residuum.cli.testing import Test, calibrated, is_network, keep_beside_run, measured, open_models
from residuum.errors import UserError, unknown_name
from residuum.files import refuse_read_only

if TYPE_CHECKING:
    from residuum.inference.predictors import Model

_LOOKING = "How images are looked at"


class Kind(StrEnum):
    """The protocols by name."""

    ONE_CROP = "1-crop"
    TEN_CROP = "10-crop"
    MULTI_SCALE = "multi-scale"


class Average(StrEnum):
    """What is averaged over views and models."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="A run, a model folder in the Hub layout, hf:owner/name, an export, or a network's name.",
        ),
    ],
    data: options.Data,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="train, val, test or all; without it, test, else val."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Measure also the average of all models' answers.")
    ] = False,
    protocol: Annotated[
        Kind,
        typer.Option("--protocol", metavar="NAME", help="1-crop, 10-crop or multi-scale.", rich_help_panel=_LOOKING),
    ] = Kind.ONE_CROP,
    scales: Annotated[
        str | None,
        typer.Option(
            "--scales",
            metavar="N,N,...",
            help="Shorter sides for multi-scale; by default 224,256,384,480,640, in proportion to the input.",
            rich_help_panel=_LOOKING,
        ),
    ] = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Look at mirror images, too.", rich_help_panel=_LOOKING)
    ] = False,
    average: Annotated[
        Average,
        typer.Option(
            "--average",
            metavar="WHAT",
            help="probabilities or logits, over views and models.",
            rich_help_panel=_LOOKING,
        ),
    ] = Average.PROBABILITIES,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="SPLIT",
            help="Fit a temperature on this split, val say, and keep it with the model.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FROM", help="A weight file for a network given by name."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="Write what was said of each image: .csv or .parquet."),
    ] = None,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
    every_class: Annotated[
        bool,
        typer.Option("--classes", help=f"Show every class, also where there are more than {FEW_CLASSES}."),
    ] = False,
    as_json: options.AsJson = False,
    batch_size: options.BatchSize = 256,
    workers: options.Workers = None,
    engine: options.Engine = "auto",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Measure models on data: accuracy with its 95 % interval, loss, calibration, and each class.

    Every image counts once; a damaged one, or one of a class the model does not know, counts as an error.

    Example: residuum evaluate runs/photos photos/ --protocol 10-crop
    """
    import_torch()
    from residuum.data.sources import open_data
    from residuum.distributed import world_from_environment
    from residuum.evaluation.answers import write_answers
    from residuum.evaluation.views import Protocol
    from residuum.weights import load

    _check_arguments(models, data, ensemble, calibrate, predictions)
    _check_engine(models, engine)
    look = Protocol(protocol.value, _parse_scales(scales), mirror, average.value)
    opened = partial(open_data, data, root=root, val_fraction=val_fraction, split_seed=split_seed)
    classifiers, dataset = open_models(models, weights, opened)
    test = Test(data, dataset, dataset.held_out(split)[0])
    how = {"batch_size": batch_size, "workers": workers, "device": device, "precision": precision}
    if calibrate:
        results = calibrated(models[0], classifiers[0], test, calibrate, look, how)
        classifiers = [load(models[0])]  # with its temperature, and on what that was fitted
    else:
        engines = [engine] * len(models)
        results = measured(models, classifiers, test, look, ensemble, how | {"engines": engines})
    if not world_from_environment().is_main:
        return
    print_notes(_notes(models, classifiers, test))
    print_first("unreadable", [f"{image}: {reason}" for image, reason in results[-1].evaluation.bad])
    if as_json:
        print_results_as_json(test, results)
    else:
        print_results(test, results, every_class)
    if predictions is not None:
        write_answers(predictions, results[-1].answers)
    if len(models) == 1:
        keep_beside_run(models[0], classifiers[0], test, results[-1])


def _check_arguments(
    names: Sequence[str], data: str, ensemble: bool, calibrate: str | None, predictions: Path | None
) -> None:
    """Refuse what makes no sense, and what could not be written in the end, before any work."""
    from residuum.evaluation.answers import check_suffix

    if _is_model(data) and not any(_is_model(name) for name in names):
        raise UserError(f"{data} is a model; name the models first and the data last")
    several = len(names) > 1
    if ensemble and not several:
        raise UserError("an ensemble of one model is that model; name two or more, or leave out --ensemble")
    if calibrate:
        _check_calibration(names)
    if predictions is not None and several and not ensemble:
        raise UserError(f"--predictions is one file for {len(names)} models; measure them apart, or add --ensemble")
    if predictions is not None:
        check_suffix(predictions)
        if predictions.is_dir():
            raise UserError(f"{predictions} is a folder; name the file to write with --predictions FILE")
        refuse_read_only(predictions)


def _check_engine(names: Sequence[str], engine: str) -> None:
    from residuum.inference.engines import ENGINES
    from residuum.inference.exported import export_folder

    if engine not in ("auto", *ENGINES):
        raise unknown_name("engine", engine, ("auto", *ENGINES))
    if engine != "auto" and not any(export_folder(Path(name)) for name in names):
        raise UserError(f"--engine {engine} is for exports, and {names[0]} is none; leave it out, or export the run")


def _check_calibration(names: Sequence[str]) -> None:
    from residuum.distributed import world_from_environment
    from residuum.hub import is_on_hub
    from residuum.model_config import CONFIG, trained_folder

    if len(names) > 1:
        raise UserError(f"--calibrate is for one model and got {len(names)}; calibrate them one by one")
    if world_from_environment().size > 1:
        raise UserError("--calibrate is for one process; run it without torchrun")
    if is_network(names[0]):
        raise UserError(f"{names[0]} is no saved model that could keep a temperature; name a run or a model folder")
    if is_on_hub(names[0]):
        raise UserError(f"{names[0]} lies on the Hub, where no temperature is kept; calibrate a copy in a folder")
    folder = trained_folder(Path(names[0]))  # an export has the temperature of its run, also within its file
    refuse_read_only(folder / CONFIG)


def _is_model(name: str) -> bool:
    return any((Path(name) / file).is_file() for file in ("run.json", "config.json"))


def _parse_scales(text: str | None) -> tuple[int, ...]:
    parts = text.split(",") if text is not None else []
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--scales {text!r} is no list of pixels; write them as in 224,256,384")
    return tuple(map(int, parts))


def _notes(names: Sequence[str], classifiers: "Sequence[Model]", test: Test) -> list[str]:
    own = [note for name, one in zip(names, classifiers, strict=True) for note in _notes_on(name, one, test)]
    return [*test.dataset.notes, *dict.fromkeys(own)]


def _notes_on(name: str, classifier: "Model", test: Test) -> Iterator[str]:
    """What to bear in mind of a model's figures."""
    from residuum.inference.calibrate import is_divided_otherwise
    from residuum.model_config import FITTED_ON

    dataset = test.dataset
    if classifier.provenance.get("untrained"):
        yield f"{name} is untrained, built without weights: only its speed says anything"
    if is_divided_otherwise(classifier, dataset):
        yield f"{dataset.spec} changed since training or is divided otherwise: the model may have seen these images"
    if classifier.temperature != 1:
        fitted = classifier.provenance.get(FITTED_ON, {})
        same = fitted.get("fingerprint") == dataset.fingerprint() and test.split in (fitted.get("split"), "all")
        flatters = ", on these very images: loss and calibration error flatter it" if same else ""
        split = fitted.get("split", "unknown")
        yield f"{name}: temperature {classifier.temperature:.3f}, fitted on {split!r}{flatters}"
