"""Several models side by side, and which of their differences the images can tell from chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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

    They stand where both were shown the same images by the same protocol: with their 95 % interval (Newcombe 1998) and
    the p-value of McNemar's exact test, which is small where chance alone would hardly make the difference.
    """
    first, *others = contenders
    several_labels = first.evaluation.top1 is None
    main, second = ("mAP", "micro F1") if several_labels else ("top-1 error", "top-5 error")
    header = ("model", f"{main} [%]", "from [%]", "to [%]", f"{second} [%]", "loss", "ECE [%]", *_DIFFERENCE)
    rows = tuple((*_scores(one), *_against(first, one)) for one in contenders)
    return Table(title, header, rows, tuple(_notes(first, others)))


def _scores(one: Contender) -> tuple[Cell, ...]:
    found = one.evaluation
    main, second = found.mean_average_precision or error(found.top1), found.micro_f1 or error(found.top5)
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
    """What stands in the way of comparing the two; None where nothing does."""
    protocols = [contender.evaluation.protocol for contender in (first, one)]
    if _look(protocols[0]) != _look(protocols[1]):
        return f"another protocol ({protocols[1]}) than {first.name} ({protocols[0]})"
    if not isinstance(first.answers, Answers) or not isinstance(one.answers, Answers):
        return "no answer an image was kept"
    if not _same_images(first.answers, one.answers):
        return f"other images than {first.name}"
    return None


def _look(protocol: str) -> str:
    """How images are looked at, whether by one model or by several."""
    return protocol.partition(", ")[2] if protocol.startswith("ensemble of ") else protocol


def _same_images(first: Answers, one: Answers) -> bool:
    """Whether both were asked of the same images, with the same labels by name."""
    if len(first.names) != len(one.names) or list(first.names) != list(one.names):
        return False
    truths = [np.array([*answers.classes, ""], dtype=object)[answers.labels] for answers in (first, one)]
    return bool((truths[0] == truths[1]).all())


def _notes(first: Contender, others: Sequence[Contender]) -> list[str]:
    obstacles = {one.name: _obstacle(first, one) for one in others}
    return [f"{name} is not compared: {obstacle}" for name, obstacle in obstacles.items() if obstacle]
