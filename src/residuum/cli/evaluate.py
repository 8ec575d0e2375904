"""`residuum evaluate`: what trained models are worth on data."""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.messages import print_first, print_notes
from residuum.cli.results import FEW_CLASSES, print_results, print_results_as_json
from residuum.cli.startup import import_torch
from residuum.cli.testing import Test, calibrated, measured, open_models
from residuum.errors import UserError

if TYPE_CHECKING:
    from residuum.data.sources import DataSet
    from residuum.weights import Classifier

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
    models_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... DATA",
            help="A run folder, its model/ folder, a folder in the Hub layout, or a network's name; several are "
            "compared. Last the data, as for train.",
        ),
    ],
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
    from residuum.evaluation.answers import check_suffix, write_answers
    from residuum.evaluation.views import Protocol

    *names, data = models_and_data
    _check_arguments(names, data, ensemble, calibrate, predictions)
    if predictions is not None:
        check_suffix(predictions)
    look = Protocol(protocol.value, _parse_scales(scales), mirror, average.value)
    opened = partial(open_data, data, root=root, val_fraction=val_fraction, split_seed=split_seed)
    classifiers, dataset = open_models(names, weights, opened)
    test = Test(data, dataset, dataset.held_out(split)[0])
    how = {"batch_size": batch_size, "workers": workers, "device": device, "precision": precision}
    if calibrate:
        results = calibrated(names[0], classifiers[0], test, calibrate, look, how)
    else:
        results = measured(names, classifiers, test, look, ensemble, how)
    if not world_from_environment().is_main:
        return
    print_notes(_notes(names, classifiers, dataset))
    print_first("unreadable", [f"{image}: {reason}" for image, reason in results[-1].evaluation.bad])
    if predictions is not None:
        write_answers(predictions, results[-1].answers)
    if as_json:
        print_results_as_json(test, results)
    else:
        print_results(test, results, every_class)


def _check_arguments(
    names: Sequence[str], data: str, ensemble: bool, calibrate: str | None, predictions: Path | None
) -> None:
    if not names:
        raise UserError(f"got {data!r} alone; name a model, and after it the data to measure it on")
    several = len(names) > 1
    if ensemble and not several:
        raise UserError("an ensemble of one model is that model; name two or more, or leave out --ensemble")
    if calibrate and several:
        raise UserError(f"--calibrate is for one model and got {len(names)}; calibrate them one by one")
    if predictions is not None and several and not ensemble:
        raise UserError(f"--predictions is one file for {len(names)} models; measure them apart, or add --ensemble")


def _parse_scales(text: str | None) -> tuple[int, ...]:
    parts = text.split(",") if text is not None else []
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--scales {text!r} is no list of pixels; write them as in 224,256,384")
    return tuple(map(int, parts))


def _notes(names: Sequence[str], classifiers: "Sequence[Classifier]", dataset: "DataSet") -> list[str]:
    untrained = [name for name, one in zip(names, classifiers, strict=True) if one.provenance.get("untrained")]
    told = [f"{name} is untrained, built without weights: only its speed says anything" for name in untrained]
    other = dict.fromkeys(note for classifier in classifiers for note in _note_of_other_data(classifier, dataset))
    return [*dataset.notes, *told, *other]


def _note_of_other_data(classifier: "Classifier", dataset: "DataSet") -> list[str]:
    """A warning where the data of training are no longer, or not divided, as they were."""
    trained_on = classifier.provenance
    same_place = str(trained_on.get("data")).rstrip("/") == dataset.spec.rstrip("/")
    if not same_place or trained_on.get("fingerprint") == dataset.fingerprint():
        return []
    return [f"{dataset.spec} changed since training or is divided otherwise: the model may have seen these images"]
