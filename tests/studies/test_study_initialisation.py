"""`initialisation`: the plan asks for one thing, the answer follows the numbers, and the digits give a real one."""

from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS
from question_results import CHANCE, FAILED, LOW, differing, results_of

from residuum.data.facts import DataFacts
from residuum.studies.engine import run_study
from residuum.studies.initialisation import STUDY, plan
from residuum.studies.study import ScaleName

CHOICES = [
    f"{weights}, {activation}" for activation in ("ReLU", "tanh") for weights in ("He", "Xavier", "Gaussian 0.01")
]
WITH, WITHOUT = ([f"{choice}, {how}" for choice in CHOICES] for how in ("BN", "no BN"))


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_the_twelve_arms_differ_in_weights_activation_and_normalisation(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert [arm.name for arm in asked.arms] == [*WITH, *WITHOUT]
    assert differing(asked) == {"model.initialisation", "model.activation", "model.normalisation"}
    chosen = {
        (arm.run.model.initialisation, arm.run.model.activation, arm.run.model.normalisation)
        for arm in asked.arms
        if arm.run is not None
    }
    assert len(chosen) == 12


def test_the_verdict_says_which_train() -> None:
    errors = dict.fromkeys(WITH, LOW) | dict.fromkeys(WITHOUT, CHANCE) | {WITHOUT[0]: LOW}
    finding = STUDY.answer(results_of(STUDY, errors))
    assert finding.verdict.startswith(
        "With batch normalisation all 6 train. Without 1 of 6 train; not Xavier with ReLU"
    )
    trains = {row["arm"]: row["trains"] for row in finding.table.records()}
    assert [trains[arm] for arm in (WITH[0], WITHOUT[0], WITHOUT[1])] == ["yes", "yes", "no"]


def test_batch_normalisation_may_save_nothing_and_a_failure_is_no_training() -> None:
    errors = dict.fromkeys(WITH, CHANCE) | dict.fromkeys(WITHOUT, LOW) | {WITHOUT[5]: FAILED}
    said = STUDY.answer(results_of(STUDY, errors)).verdict
    assert said == "With batch normalisation none of the 6 trains. Without 5 of 6 train; not Gaussian 0.01 with tanh."


def test_an_arm_that_trains_from_some_seeds_alone_is_told_so() -> None:
    errors = dict.fromkeys([*WITH, *WITHOUT], LOW) | {WITHOUT[3]: [LOW[0], LOW[1], CHANCE[0]]}
    finding = STUDY.answer(results_of(STUDY, errors))
    assert "not He with tanh (2 of 3 seeds)" in finding.verdict


def test_on_the_digits_small_first_weights_train_with_batch_normalisation_alone(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    trains = {row["arm"]: row["trains"] for row in found.finding.table.records()}
    assert [trains[arm] for arm in WITH] == ["yes"] * 6
    assert trains["He, ReLU, no BN"] == "yes"
    assert trains["He, tanh, no BN"] == "yes"
    assert trains["Xavier, tanh, no BN"] == "yes"
    assert trains["Xavier, ReLU, no BN"] == "no"
    assert trains["Gaussian 0.01, ReLU, no BN"] == "no"
    assert trains["Gaussian 0.01, tanh, no BN"] == "no"
