"""What a model is worth on a split: every number that is printed, from what the model said of each image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from residuum.errors import counted
from residuum.evaluation.answers import Answers, LabelAnswers
from residuum.evaluation.calibration import reliability
from residuum.evaluation.metrics import PerClass, multi_label_metrics, per_class_of_confusion, wilson_interval
from residuum.evaluation.significance import Statistic, bootstrap_interval, macro_f1, mean_average_precision, mean_of
from residuum.records import Cell, Measurement, Table

MANY_CLASSES = 5
"""A model of no more classes is right by its first five answers whatever it says."""


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on a split.

    images counts every image of the split, the `bad` ones (name, reason) that could not be read and the
    `unknown` ones of a class that the model does not have included: both count as errors. top1, top5:
    accuracy in %, None for multi-label; mean_average_precision and micro_f1, in %, for multi-label only. loss: the mean
    over the images that could be read and are of a known class; for multi-label also over the classes. protocol: the
    name of how images were looked at. calibration_error, and the intervals of what is no proportion, are of `in_full`.
    """

    images: int
    protocol: str
    loss: Measurement
    per_class: Table
    bad: tuple[tuple[str, str], ...] = ()
    unknown: int = 0
    top1: Measurement | None = None
    top5: Measurement | None = None
    mean_average_precision: Measurement | None = None
    micro_f1: Measurement | None = None
    macro_f1: Measurement | None = None
    calibration_error: Measurement | None = None

    @property
    def score(self) -> float:
        """The number to compare models by, in %: top-1 accuracy; mean average precision for multi-label."""
        best = self.mean_average_precision or self.top1
        assert best is not None
        return best.value

    @property
    def informative_top5(self) -> Measurement | None:
        """Top-5 accuracy; None where there are so few classes that any answer holds the true one."""
        return self.top5 if len(self.per_class.rows) > MANY_CLASSES else None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """The evaluation that `records.plain` turned into what JSON has; numbers that JSON lacks are NaN."""
        known = {field.name for field in fields(cls)}
        read = {name: _measurement(value) for name, value in values.items() if name in known}
        table = values["per_class"]
        rows = tuple(tuple(row) for row in table["rows"])
        read["per_class"] = Table(table["title"], tuple(table["columns"]), rows, tuple(table["notes"]))
        read["bad"] = tuple((name, reason) for name, reason in values.get("bad", ()))
        return cls(**read)

    def headline(self) -> Table:
        """The few lines that say it all."""
        top5 = self.informative_top5
        measured = {
            "top-1 accuracy": self.top1,
            "top-1 error": error(self.top1),
            "top-5 accuracy": top5,
            "top-5 error": error(top5),
            "mean average precision": self.mean_average_precision,
            "micro F1": self.micro_f1,
            "macro F1": self.macro_f1,
            "loss": self.loss,
            "calibration error": self.calibration_error,
        }
        rows = [(name, m.value, m.unit, m.low, m.high) for name, m in measured.items() if m is not None]
        return Table(
            f"{self.images:,} images, {self.protocol}",
            ("measure", "value", "unit", "95 % from", "to"),
            tuple(rows),
            self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.bad:
            name, reason = self.bad[0]
            notes.append(f"counted as errors: {counted(len(self.bad), 'unreadable image')}, first {name}: {reason}")
        if self.unknown:
            notes.append(f"counted as errors: {counted(self.unknown, 'image')} of a class the model does not know")
        if self.bad or self.unknown:
            notes.append("the loss is the mean over the other images")
        return tuple(notes)


def _measurement(value: Any) -> Any:
    """A Measurement again where one was written."""
    if not isinstance(value, Mapping) or "unit" not in value:
        return value
    numbers = {name: None if value[name] is None else float(value[name]) for name in ("low", "high")}
    return Measurement(math.nan if value["value"] is None else float(value["value"]), value["unit"], **numbers)


def error(accuracy: Measurement | None) -> Measurement | None:
    """What the papers print: 100 % less the accuracy."""
    if accuracy is None:
        return None
    low, high = accuracy.low, accuracy.high
    return Measurement(
        100 - accuracy.value,
        accuracy.unit,
        None if high is None else 100 - high,
        None if low is None else 100 - low,
    )


def evaluation_of(answers: Answers | LabelAnswers, protocol: str, bad: tuple[tuple[str, str], ...] = ()) -> Evaluation:
    """The scores of what a model said. bad: name and reason of the images that could not be read."""
    if isinstance(answers, LabelAnswers):
        return _of_labels(answers, protocol, bad)
    confusion = answers.confusion()
    total = len(answers.labels)
    return Evaluation(
        images=total,
        protocol=protocol,
        loss=_mean(answers.losses),
        per_class=_per_class_table(answers.classes, per_class_of_confusion(confusion)),
        bad=bad,
        unknown=int(confusion[-1].sum()),
        top1=_accuracy(int(answers.right.sum()), total),
        top5=_accuracy(int(((answers.ranks >= 0) & (answers.ranks < MANY_CLASSES)).sum()), total),
    )


def in_full(evaluation: Evaluation, answers: Answers | LabelAnswers) -> Evaluation:
    """With what takes a second more: the calibration error, macro F1, and bootstrap intervals."""
    if isinstance(answers, LabelAnswers):
        average = mean_average_precision(answers.labels, answers.probabilities)
        return replace(
            evaluation,
            loss=_with_interval(evaluation.loss, mean_of(answers.losses), evaluation.images),
            mean_average_precision=_with_interval(evaluation.mean_average_precision, average, evaluation.images),
        )
    f1 = macro_f1(answers.labels, answers.predictions, len(answers.classes))
    return replace(
        evaluation,
        loss=_with_interval(evaluation.loss, mean_of(answers.losses), evaluation.images),
        macro_f1=_with_interval(_percent(float(f1(np.ones((1, evaluation.images)))[0])), f1, evaluation.images),
        calibration_error=reliability(answers.confidences, answers.right).ece,
    )


def _with_interval(measured: Measurement | None, statistic: Statistic, images: int) -> Measurement:
    assert measured is not None
    scale = 100 if measured.unit == "%" else 1
    low, high = bootstrap_interval(statistic, images)
    return measured if math.isnan(low) else replace(measured, low=scale * low, high=scale * high)


def _of_labels(answers: LabelAnswers, protocol: str, bad: tuple[tuple[str, str], ...]) -> Evaluation:
    # What could not be read says nothing, nor does what is not a number.
    metrics = multi_label_metrics(np.nan_to_num(answers.probabilities, nan=0.0), answers.labels)
    return Evaluation(
        images=len(answers.labels),
        protocol=protocol,
        loss=_mean(answers.losses),
        per_class=_per_class_table(answers.classes, metrics.per_class, metrics.average_precision),
        bad=bad,
        mean_average_precision=_percent(metrics.mean_average_precision),
        micro_f1=_percent(metrics.micro_f1),
        macro_f1=_percent(metrics.macro_f1),
    )


def _accuracy(right: int, total: int) -> Measurement:
    low, high = wilson_interval(right, total)
    return Measurement(100 * right / total, "%", 100 * low, 100 * high)


def _percent(share: float) -> Measurement:
    return Measurement(100 * share, "%")


def _mean(losses: NDArray[np.float32]) -> Measurement:
    judged = losses[~np.isnan(losses)]
    return Measurement(float(judged.mean(dtype=np.float64)) if len(judged) else math.nan, "nats")


def _per_class_table(
    classes: tuple[str, ...], scores: PerClass, average_precision: NDArray[np.float64] | None = None
) -> Table:
    columns: dict[str, NDArray[np.float64]] = {
        "precision": scores.precision,
        "recall": scores.recall,
        "F1": scores.f1,
    }
    if average_precision is not None:
        columns["average precision"] = average_precision
    measured = zip(*((_cell(share) for share in column) for column in columns.values()), strict=True)
    rows = zip(classes, scores.images.tolist(), measured, strict=True)
    return Table(
        "Per class, in %",
        ("class", "images", *columns),
        tuple((name, images, *cells) for name, images, cells in rows),
    )


def _cell(share: float) -> Cell:
    return None if math.isnan(share) else 100 * float(share)
