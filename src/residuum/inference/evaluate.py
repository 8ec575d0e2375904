"""Trained models measured on a data set: classes matched by name, each model's preprocessing as in its training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from residuum.data.sources import DataSet
from residuum.data.splits import Split
from residuum.data.view_loader import ViewLoader, Views
from residuum.data.workers import Progress
from residuum.distributed import World, process_group, world_from_environment
from residuum.errors import UserError, listed, tells_of_no_memory
from residuum.evaluation.answers import Answers, LabelAnswers
from residuum.evaluation.evaluate import answer
from residuum.evaluation.scores import Evaluation, evaluation_of, in_full
from residuum.evaluation.views import Predict, Protocol, Viewing, average_scores, predict_views, viewing
from residuum.hardware import choose_device, default_workers
from residuum.inference.activation_maps import activation_maps
from residuum.inference.engines import Engine, refuse_choice
from residuum.inference.exported import Exported
from residuum.inference.predictors import Model, model_predictor

_VIEW_BYTES = 2**28  # of views that wait for the network


@dataclass(frozen=True)
class Measured:
    """What a model is worth, and what it said of each image."""

    evaluation: Evaluation
    answers: Answers | LabelAnswers


def evaluate(
    classifier: Model,
    dataset: DataSet,
    *,
    split: str | None = None,
    protocol: Protocol | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str | Engine = "auto",
) -> Evaluation:
    """Score a model on a split of a data set: test, else val, else the only one; or the one named; or "all".

    The data set must be opened with the model's classes, `open_data(spec, classes=classifier.classes)`, which
    matches them by name. Images stream, each through the model's own preprocessing, decoded by `workers` threads
    (0: when they are needed);
    without a `protocol` the centre view is looked at. engine: of an export, by name or already open; device and
    precision are a run's. Under torchrun each process takes its share, and all get the
    same result.
    Raises UserError for other classes, for several labels an image where the model gives one, for a split that
    is not there, for a protocol that the network cannot follow and for a device that cannot be had.
    """
    (measured,) = measure(
        [classifier],
        dataset,
        split=split,
        protocol=protocol,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        engines=[engine],
    )
    return measured.evaluation


def measure(
    classifiers: Sequence[Model],
    dataset: DataSet,
    *,
    split: str | None = None,
    protocol: Protocol | None = None,
    ensemble: bool = False,
    batch_size: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    engines: Sequence[str | Engine] | None = None,
    progress: Progress | None = None,
) -> list[Measured]:
    """Each model's evaluation and answers, in one pass over the images; with `ensemble` also, last, their average's.

    The models may differ in architecture, preprocessing and the order of their classes; an image is decoded once (twice
    where some see colours and some grey). engines: one for each model, which is used where that is exported; device and
    precision are those of the runs among them, and refused where there is none. Otherwise as `evaluate`.
    """
    check_labels(classifiers, dataset)
    if all(isinstance(one, Exported) for one in classifiers):
        refuse_choice(listed(one.architecture for one in classifiers), device, precision)
    where, protocol = choose_device(device, world_from_environment().local_rank), protocol or Protocol()
    panel = Panel.of(classifiers, dataset.classes, protocol, where, precision, batch_size, engines)
    average = partial(average_scores, how=protocol.average, multi_label=classifiers[0].multi_label)

    def predict(views: Sequence[Sequence[Views]]) -> list[Tensor]:
        scores = panel(views)
        return [*scores, average(torch.stack(scores))] if ensemble else scores

    with process_group(where) as world:
        answers, bad = answer(
            predict,
            panel.loader(dataset.held_out(split)[1], batch_size, workers, where, world),
            models=len(classifiers) + ensemble,
            classes=dataset.classes,
            multi_label=classifiers[0].multi_label,
            world=world,
            progress=progress,
        )
    names = [protocol.name(classifier.preprocessing) for classifier in classifiers]
    names += [_ensemble_name(names, protocol)] if ensemble else []
    found = zip(answers, names, strict=True)
    return [Measured(in_full(evaluation_of(own, name, bad), own), own) for own, name in found]


@dataclass(frozen=True)
class Panel:
    """Models that look at the same images: a function from the views of a batch to the logits (N, K) of each.

    viewings: how images are seen, each way once; members: for each model which way is its own, and what gives its
    logits.
    """

    viewings: tuple[Viewing, ...]
    members: tuple[tuple[int, Callable[[Sequence[Views]], Tensor]], ...]

    @classmethod
    def of(
        cls,
        classifiers: Sequence[Model],
        classes: tuple[str, ...],
        protocol: Protocol,
        device: torch.device,
        precision: str,
        batch_size: int,
        engines: Sequence[str | Engine] | None = None,
    ) -> Self:
        """The models on `device`, their scores in the order of `classes`, `batch_size` views at a time.

        engines: for each model, what computes it where it is exported; by default the fastest.
        """
        own = [viewing(classifier.preprocessing, protocol) for classifier in classifiers]
        viewings = tuple(dict.fromkeys(own))
        members = []
        for classifier, seen, engine in zip(classifiers, own, engines or ["auto"] * len(own), strict=True):
            predict = model_predictor(classifier, device, precision, classes, engine)
            if protocol.kind == "multi-scale":
                _check_fully_convolutional(classifier, predict, protocol, device)
            look = predict_views(
                predict,
                classifier.preprocessing,
                protocol,
                device=device,
                batch_size=batch_size,
                multi_label=classifier.multi_label,
            )
            members.append((viewings.index(seen), look))
        return cls(viewings, tuple(members))

    def __call__(self, views: Sequence[Sequence[Views]]) -> list[Tensor]:
        return [predict(views[number]) for number, predict in self.members]

    def loader(
        self, images: Split, batch_size: int, workers: int | None, device: torch.device, world: World
    ) -> ViewLoader:
        """The images as all members see them: a batch, or as many as have views of some 256 MiB, at a time."""
        threads = default_workers(device) if workers is None else workers
        of_one = sum(viewing.bytes_of_image() for viewing in self.viewings)
        at_once = max(1, min(batch_size, _VIEW_BYTES // of_one))
        return ViewLoader(images, self.viewings, at_once, threads=threads, device=device, world=world)


def check_labels(classifiers: Sequence[Model], dataset: DataSet) -> None:
    """Raise UserError for models that cannot be measured on the data, or not together."""
    for classifier in classifiers:
        if set(classifier.classes) != set(dataset.classes):
            raise UserError(
                f"{dataset.spec} was opened under other classes than those of {classifier.architecture}; open it with "
                "open_data(spec, classes=classifier.classes), which matches them by name; models that are measured "
                "together have the same classes"
            )
        if dataset.multi_label and not classifier.multi_label:
            raise UserError(
                f"{dataset.spec} has several labels an image and the model gives one; "
                "evaluate it on data of one label an image, or train a model on such data"
            )
    if len({classifier.multi_label for classifier in classifiers}) > 1:
        raise UserError("some of the models give one label an image, some several; measure them apart")


def _check_fully_convolutional(classifier: Model, predict: Predict, protocol: Protocol, device: torch.device) -> None:
    """Refuse a network whose logits are not the mean over positions of a linear classifier's, at any of the sizes."""
    handling = classifier.preprocessing
    if isinstance(classifier, Exported):
        raise UserError(
            f"{classifier.file} takes images of {handling.size} pixels only; use the protocol 1-crop or 10-crop, or "
            "evaluate the run that it was exported from"
        )
    try:
        for side in protocol.sides(handling):
            predict(torch.zeros(1, handling.channels, side, side, device=device))
        larger = torch.randn(1, handling.channels, 2 * handling.size, 2 * handling.size)
        found = activation_maps(classifier.network, larger.to(device), torch.zeros(1, dtype=torch.int64))
        reason = "its logits are not the mean of a classifier's at every position"
    except (RuntimeError, ValueError, AssertionError) as error:
        if tells_of_no_memory(error):
            raise
        found, reason = None, "it takes images of one size only, or none so small"
    if found is None or found.method != "CAM":
        raise UserError(
            f"{classifier.architecture} is not fully convolutional ({reason}); use the protocol 1-crop or 10-crop"
        )


def _ensemble_name(names: Sequence[str], protocol: Protocol) -> str:
    looks = " + ".join(dict.fromkeys(names))
    how = "; logits averaged" if protocol.average == "logits" else ""
    return f"ensemble of {len(names)}, {looks}{how}"
