"""A small study for the engine's tests: two networks of eight layers on the digits, two seeds, one epoch."""

import math
from collections.abc import Mapping
from typing import Any

from residuum.data.facts import DataFacts
from residuum.studies.results import Results, arms_table, contrast, error_chart, in_words
from residuum.studies.settings import base_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study, Subject


def count_files(subject: Subject) -> Mapping[str, Any]:
    """A measure after training: it finds the model, and says what it was asked."""
    assert subject.folder is not None
    return {"has_model": (subject.folder / "model").is_dir(), "asked": subject.settings["asked"]}


def count_images(subject: Subject) -> Mapping[str, Any]:
    """A measure without training."""
    assert subject.folder is None
    return {"images": len(subject.dataset.train), "seed": subject.seed, "nothing": math.nan}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    plain, residual = (base_run(scale, facts, name, "epochs=1") for name in ("plain8", "resnet8"))
    arms = (
        Arm("plain", plain),
        Arm("residual", residual, count_files, {"asked": 7}),
        Arm("counting", measure=count_images),
    )
    return Plan(arms, train_images=600, test_images=100, seeds=2)


def answer(results: Results) -> Finding:
    trained = Results(results.scale, results.data, results.plan, dict(list(results.outcomes.items())[:2]))
    verdict = in_words(contrast(trained, "plain", "residual"))
    return Finding(verdict, arms_table(trained, "Two networks"), (error_chart(trained),), ("a note",))


TRIAL = Study("trial", "Which of the two is better?", "nobody", plan, answer)
