"""Several models side by side, and which of their differences the images can tell from chance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from residuum.errors import UserError
from residuum.evaluation.answers import Answers, LabelAnswers
from residuum.evaluation.scores import Evaluation, error
from residuum.evaluation.significance import mcnemar, paired_difference
from residuum.records import Cell, Measurement, Table

_DIFFERENCE = ("difference [%]", "difference from [%]", "difference to [%]", "p")


@dataclass(frozen=True)
class Contender:
    """A model that is compared: its name, its scores, and what it said of each image where that was kept."""

    name: str
    evaluation: Evaluation
    answers: Answers | LabelAnswers | None = None


def compare(contenders: Sequence[Contender], title: str) -> Table:
    """One row a model; the differences are of its top-1 error to the first model's, in percentage points.

    They stand where both were shown the same images: with their 95 % interval (Newcombe 1998) and the p-value of
    McNemar's exact test. Where the protocols were not the same a note says so. Raises UserError where some models give
    one label an image and some several.
    """
    first, *others = contenders
    several_labels = first.evaluation.top1 is None
    for one in others:
        if (one.evaluation.top1 is None) != several_labels:
            raise UserError(f"one of {first.name} and {one.name} has several labels an image; compare them apart")
    main, second = ("mAP", "micro F1") if several_labels else ("top-1 error", "top-5 error")
    header = ("model", f"{main} [%]", "from [%]", "to [%]", f"{second} [%]", "loss", "ECE [%]", *_DIFFERENCE)
    rows = tuple((*_scores(one), *_against(first, one)) for one in contenders)
    return Table(title, header, rows, tuple(note for one in others for note in _notes(first, one)))


def _scores(one: Contender) -> tuple[Cell, ...]:
    found = one.evaluation
    main, second = found.mean_average_precision or error(found.top1), found.micro_f1 or error(found.informative_top5)
    assert main is not None
    return one.name, main.value, main.low, main.high, _value(second), found.loss.value, _value(found.calibration_error)


def _value(measured: Measurement | None) -> Cell:
    return None if measured is None else measured.value


def _against(first: Contender, one: Contender) -> tuple[Cell, ...]:
    if one is first or _obstacle(first, one):
        return (None,) * 4
    assert isinstance(first.answers, Answers)
    assert isinstance(one.answers, Answers)
    gap = paired_difference(first.answers.right, one.answers.right)  # of accuracies, the first's less this one's
    return gap.value, gap.low, gap.high, mcnemar(first.answers.right, one.answers.right).p_value


def _obstacle(first: Contender, one: Contender) -> str | None:
    """What stands in the way of comparing the two image by image; None where nothing does."""
    if first.evaluation.top1 is None:
        return "McNemar's test is for one label an image"
    if not isinstance(first.answers, Answers) or not isinstance(one.answers, Answers):
        return "what was said of each image was not kept"
    if not _same_images(first.answers, one.answers):
        return f"it was measured on other images than {first.name}"
    return None


def _same_images(first: Answers, one: Answers) -> bool:
    """Whether both were asked of the same images, with the same labels by name."""
    if len(first.names) != len(one.names) or list(first.names) != list(one.names):
        return False
    truths = [np.array([*answers.classes, ""], dtype=object)[answers.labels] for answers in (first, one)]
    return bool((truths[0] == truths[1]).all())


def _notes(first: Contender, one: Contender) -> Iterator[str]:
    if obstacle := _obstacle(first, one):
        yield f"{one.name} has no difference: {obstacle}"
    protocols = [contender.evaluation.protocol for contender in (first, one)]
    if _look(protocols[0]) != _look(protocols[1]):
        yield f"not the same protocol: {one.name} by {protocols[1]}, {first.name} by {protocols[0]}"


def _look(protocol: str) -> str:
    """How images are looked at, whether by one model or by an ensemble."""
    return protocol.partition(", ")[2].partition(";")[0] if protocol.startswith("ensemble of ") else protocol
