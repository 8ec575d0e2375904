"""Made-up results of a study's own plan, to read answers off."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from residuum.data.facts import DataFacts
from residuum.evaluation.scores import Evaluation
from residuum.records import Measurement, Table
from residuum.studies.results import Outcome, Results
from residuum.studies.study import Plan, ScaleName, Study

DIGITS = DataFacts(images=1_438, classes=10, channels=1, height=8, width=8, multi_label=False)
CIFAR = DataFacts(images=50_000, classes=10, channels=3, height=32, width=32, multi_label=False)
PHOTOGRAPHS = DataFacts(images=1_000, classes=10, channels=3, height=375, width=500, multi_label=False)

Errors = Sequence[tuple[float, float]]
"""(training error, test error) [%] a seed."""


def made_up(
    study: Study,
    errors: Mapping[str, Errors],
    *,
    scale: ScaleName = "smoke",
    data: str = "digits",
    facts: DataFacts = DIGITS,
    measured: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Results:
    """The study's arms with these errors; an arm without any has failed."""
    plan = study.plan(scale, facts)
    outcomes = {
        arm.name: _outcomes(plan, arm.name, errors.get(arm.name, ()), (measured or {}).get(arm.name))
        for arm in plan.arms
    }
    return Results(scale, data, plan, outcomes)


def _outcomes(
    plan: Plan, name: str, errors: Errors, measured: Sequence[Mapping[str, Any]] | None
) -> tuple[Outcome, ...]:
    run = next(arm.run for arm in plan.arms if arm.name == name)
    if run is None:
        return tuple(Outcome(name, seed, Path("nowhere"), measured=one) for seed, one in enumerate(measured or ()))
    if not errors:
        return (
            Outcome(name, 0, Path("nowhere"), "failed", "the loss is nan at update 3", run=run, classes=("0", "1")),
        )
    found = []
    for seed, (trained, tested) in enumerate(errors):
        line = {"epoch": 1, "step": 22, "train_error": trained, "train_loss": trained / 30, "val_error": tested}
        evaluation = Evaluation(
            359, "1-crop 8", Measurement(0.5), Table("", ("class",), ()), top1=Measurement(100 - tested)
        )
        found.append(
            Outcome(
                name,
                seed,
                Path("nowhere"),
                metrics=({**line, "train_error": 90.0, "seconds": 1.0}, {**line, "epoch": 2, "seconds": 1.0}),
                evaluations={"test": evaluation},
                measured=measured[seed] if measured else {},
                run=run,
                classes=("0", "1"),
            )
        )
    return tuple(found)
