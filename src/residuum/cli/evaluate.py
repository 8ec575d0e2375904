"""`residuum evaluate`: what a trained model is worth on data."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from residuum.cli import options
from residuum.cli.messages import print_first, print_notes, printable_table
from residuum.cli.startup import import_torch
from residuum.records import Measurement, Table, plain

if TYPE_CHECKING:
    from residuum.data.sources import DataSet
    from residuum.evaluation.evaluate import Evaluation
    from residuum.weights import Classifier

FEW_CLASSES = 20
WORST = 10


def evaluate(
    model: options.TrainedModel,
    data: options.Data,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="train, val, test or all; without it, test, else val."),
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
    """Measure a model on data: accuracy with its 95 % interval, loss, and each class.

    Every image counts once; a damaged one, or one of a class the model does not know, counts as an error.

    Example: residuum evaluate runs/photos photos/ --json
    """
    import_torch()
    from residuum.data.sources import open_data
    from residuum.distributed import world_from_environment
    from residuum.inference.evaluate import evaluate as evaluate_model
    from residuum.report.terminal import print_json, print_table
    from residuum.weights import load

    classifier = load(model)
    dataset = open_data(data, root=root, classes=classifier.classes, val_fraction=val_fraction, split_seed=split_seed)
    name, _ = dataset.held_out(split)
    evaluation = evaluate_model(
        classifier,
        dataset,
        split=split,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
    )
    if not world_from_environment().is_main:
        return
    print_notes([*dataset.notes, *_note_of_other_data(classifier, dataset)])
    print_first("unreadable", [f"{image}: {reason}" for image, reason in evaluation.bad])
    if as_json:
        per_class = evaluation.per_class.records()
        print_json({"model": str(model), "data": data, "split": name, **plain(evaluation), "per_class": per_class})
    else:
        print(summary(f"{data}, {name}", evaluation))
        print()
        shown = evaluation.per_class if every_class else worst_classes(evaluation.per_class)
        print_table(printable_table(shown))


def summary(subject: str, evaluation: "Evaluation") -> str:
    """The measurements line by line, below what was measured, on how many images and by which protocol."""
    from residuum.report.terminal import measurement_text

    headline = evaluation.headline()
    lines = [f"{subject}: {headline.title}"]
    for name, *measured in headline.rows:
        value, unit, low, high = cast("tuple[float, str, float | None, float | None]", measured)
        lines.append(f"  {name:<22}  {measurement_text(Measurement(value, unit, low, high))}")
    return "\n".join([*lines, *(f"  {note}" for note in headline.notes)])


def worst_classes(table: Table) -> Table:
    """The table itself where classes are few, else the classes of lowest F1 and a note on the rest."""
    if len(table.rows) <= FEW_CLASSES:
        return table
    f1 = table.columns.index("F1")
    known = [row for row in table.rows if isinstance(row[f1], float)]
    worst = sorted(known, key=lambda row: cast(float, row[f1]))[:WORST]
    note = f"the {len(worst)} classes of lowest F1, of {len(table.rows):,}; --classes shows them all"
    return Table(table.title, table.columns, tuple(worst), (*table.notes, note))


def _note_of_other_data(classifier: "Classifier", dataset: "DataSet") -> list[str]:
    """A warning where the data of training are no longer, or not divided, as they were."""
    trained_on = classifier.provenance
    same_place = str(trained_on.get("data")).rstrip("/") == dataset.spec.rstrip("/")
    if not same_place or trained_on.get("fingerprint") == dataset.fingerprint():
        return []
    return [f"{dataset.spec} changed since training or is divided otherwise: the model may have seen these images"]
