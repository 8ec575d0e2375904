"""A published figure beside what was measured, and how many standard errors lie between."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from residuum.evaluation.published import recognise
from residuum.evaluation.scores import error
from residuum.evaluation.views import Kind, Protocol
from residuum.inference.evaluate import evaluate
from residuum.records import Cell, Table
from residuum.studies.results import Results, Spread, error_chart, known, spread
from residuum.studies.study import Finding, Plan, Subject
from residuum.weights import load

_MEDIAN = math.pi / 2  # the variance of a median over that of a mean, of many normal values
_NOTE = (
    "z: measured less published, over s; s: the deviation from run to run, combined for both numbers of runs, or the "
    "binomial standard error of the test set, which knows nothing of the luck of training"
)


class Figure(NamedTuple):
    """A printed error [%] of an arm: "top-1" or "top-5", of how many runs, mean or median, with their deviation.

    error: None where the paper prints `word` in its place.
    """

    arm: str
    error: float | None
    top: str = "top-1"
    std: float | None = None
    runs: int = 1
    is_median: bool = False
    word: str = ""


# What is measured: the trained network, the way the paper looked at its test images.


def as_published(subject: Subject) -> Mapping[str, Any]:
    """Errors [%] by the protocol in `settings`: "top-1", "top-5"; the test set's size, and its name if it is known."""
    assert subject.folder is not None
    assert subject.run is not None
    kind: Kind = subject.settings["protocol"]
    found = evaluate(
        load(subject.folder),
        subject.dataset,
        protocol=Protocol(kind),
        device=subject.run.device,
        precision=subject.run.precision,
    )
    errors = {name: error(one) for name, one in (("top-1", found.top1), ("top-5", found.top5))}
    return {
        **{name: None if one is None else one.value for name, one in errors.items()},
        "images": found.images,
        "protocol": found.protocol,
        "data": recognise(subject.dataset, subject.dataset.held_out()[0]),
    }


def measured_as_published(plan: Plan, kind: Kind) -> Plan:
    """The plan with every arm measured by this protocol after its training."""
    arms = tuple(replace(arm, measure=as_published, settings={"protocol": kind}) for arm in plan.arms)
    return replace(plan, arms=arms)


# What it says.


class _Row(NamedTuple):
    figure: Figure
    measured: Spread
    s: float
    basis: str

    @property
    def z(self) -> float | None:
        """How many standard errors the measured error lies above the published one."""
        if self.figure.error is None or not self.s > 0 or not self.measured.n:
            return None
        return (self.measured.mean - self.figure.error) / self.s


def compared(results: Results, *, title: str, figures: Sequence[Figure], data: str) -> Finding:
    """Each figure beside what was measured, with z = (measured - published) / s.

    s: the standard deviation from run to run, as published or else of the measured seeds, times the root of 1/n + 1/m
    for n measured and m published runs (pi/2m where a median is printed, which scatters more than a mean); where
    neither is known, the binomial standard error of the test set. No z is given on other data than `data`.
    """
    judged_on = {one.measured.get("data") for arm in results.outcomes for one in results.finished(arm)}
    is_comparable = judged_on == {data}
    rows = [_row(results, figure) for figure in figures]
    columns = ("arm", "error", "published [%]", "measured [%]", "±", "s", "s from", "z", "runs")
    notes = [_NOTE] if is_comparable else [f"these data are not {data}: no z can be given"]
    return Finding(
        verdict=_verdict(rows, is_comparable, data),
        table=Table(title, columns, tuple(_cells(row, is_comparable) for row in rows)),
        charts=(error_chart(results),) if judged_on else (),
        notes=tuple(notes),
    )


def _row(results: Results, figure: Figure) -> _Row:
    found = [one.measured for one in results.finished(figure.arm)]
    measured = spread(one[figure.top] for one in found if one[figure.top] is not None)
    s, basis = _standard_error(figure, measured, found[0]["images"] if found else 0)
    return _Row(figure, measured, s, basis)


def _standard_error(figure: Figure, measured: Spread, images: int) -> tuple[float, str]:
    """Of the difference, in points, and what it was made from."""
    if figure.error is None or not measured.n:
        return math.nan, ""
    runs = 1 / measured.n + (_MEDIAN if figure.is_median else 1.0) / figure.runs
    if figure.std is not None:
        return figure.std * math.sqrt(runs), "published runs"
    if measured.n > 1 and measured.std > 0:
        return measured.std * math.sqrt(runs), "measured runs"
    share = figure.error / 100
    return 100 * math.sqrt(share * (1 - share) / images), "test set"


def _cells(row: _Row, is_comparable: bool) -> tuple[Cell, ...]:
    figure, measured = row.figure, row.measured
    published: Cell = figure.word or figure.error
    numbers = (known(value) for value in (measured.mean, measured.std))
    sure = (known(row.s), row.basis, row.z) if is_comparable else (None, "", None)
    return figure.arm, figure.top, published, *numbers, *sure, measured.n


def _verdict(rows: Sequence[_Row], is_comparable: bool, data: str) -> str:
    if not is_comparable:
        return f"Nothing can be said of the published figures, which are of {data}: these are other data."
    scored = {row: row.z for row in rows if row.z is not None}
    if not scored:
        return "No network with a printed figure was trained to its end."
    within = sum(abs(z) <= 2 for z in scored.values())
    farthest, z = max(scored.items(), key=lambda one: abs(one[1]))
    assert farthest.figure.error is not None
    mean = sum(row.measured.mean - row.figure.error for row in scored if row.figure.error is not None) / len(scored)
    how = "above" if mean > 0 else "below"
    return (
        f"{within} of {len(scored)} published errors come out again within two standard errors; on average the "
        f"measured ones lie {abs(mean):.2f} points {how}. Farthest off is {farthest.figure.arm} "
        f"({farthest.figure.top}): {farthest.measured} % against {farthest.figure.error:.2f} % (z = {z:+.1f})."
    )
