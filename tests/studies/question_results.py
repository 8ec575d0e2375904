"""What the tests of the studies of many arms share: made-up results of ten classes, and in what the arms differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from depth_results import DIGITS, Errors, made_up

from residuum.data.facts import DataFacts
from residuum.studies.results import Outcome, Results
from residuum.studies.study import Plan, ScaleName, Study
from residuum.training.overrides import describe_difference

LOW: Errors = [(1.0, 5.0), (1.2, 5.2), (0.9, 5.1)]
MIDDLE: Errors = [(3.0, 8.0), (3.3, 8.1), (2.9, 8.2)]
HIGH: Errors = [(30.0, 32.0), (33.0, 34.0), (31.0, 36.0)]
CHANCE: Errors = [(90.0, 90.0), (89.9, 90.0), (90.1, 90.0)]
FAILED: Errors = []

_CLASSES = tuple("0123456789")


def results_of(
    study: Study,
    errors: Mapping[str, Errors],
    *,
    scale: ScaleName = "smoke",
    data: str = "digits",
    facts: DataFacts = DIGITS,
    measured: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Results:
    """The study's arms with these errors; an arm without any has failed."""
    found = made_up(study, errors, scale=scale, data=data, facts=facts, measured=measured)
    return replace(found, outcomes={arm: tuple(map(_of_ten_classes, ones)) for arm, ones in found.outcomes.items()})


def _of_ten_classes(outcome: Outcome) -> Outcome:
    metrics = tuple({**line, "images": 1_438} for line in outcome.metrics)
    return replace(outcome, metrics=metrics, classes=_CLASSES)


def differing(plan: Plan) -> set[str]:
    """The fields in which the runs of the plan differ from the first."""
    runs = [arm.run for arm in plan.arms if arm.run is not None]
    return {line.partition(":")[0] for run in runs for line in describe_difference(runs[0], run)}
