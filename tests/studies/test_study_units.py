"""`units`: the plan asks for one thing, the answer follows the numbers, and the digits give a real one."""

from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS
from question_results import FAILED, HIGH, LOW, MIDDLE, differing, results_of

from residuum.data.facts import DataFacts
from residuum.models.catalogue import create_skeleton
from residuum.models.summary import summarise
from residuum.studies.engine import run_study
from residuum.studies.study import ScaleName
from residuum.studies.units import STUDY, plan

ARMS = (
    "original",
    "BN after addition",
    "ReLU before addition",
    "ReLU-only pre-activation",
    "full pre-activation",
    "BN after ReLU",
)


@pytest.mark.parametrize(("scale", "depth"), [("smoke", 20), ("small", 56), ("paper", 110)])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_the_arms_differ_in_the_unit_alone(scale: ScaleName, depth: int, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert tuple(arm.name for arm in asked.arms) == ARMS
    assert differing(asked) == {"model.name"}
    assert all(arm.run is not None and str(depth) in arm.run.model.name for arm in asked.arms)
    assert asked.arms[0].run is not None
    assert asked.arms[0].run.data.size == min(32, facts.height)


def test_the_networks_have_one_size() -> None:
    names = [arm.run.model.name for arm in plan("smoke", DIGITS).arms if arm.run is not None]
    assert len({summarise(create_skeleton(name), (3, 32, 32)).multiply_adds for name in names}) == 1


def test_at_the_papers_scale_every_net_warms_up_as_he_et_al_2016_do() -> None:
    asked = plan("paper", CIFAR)
    assert asked.seeds == 5
    for arm in asked.arms:
        assert arm.run is not None
        assert (arm.run.schedule.warmup_steps, arm.run.schedule.warmup_lr) == (400, 0.01)
        assert arm.run.iterations == 64_000


def test_the_verdict_names_the_best_the_worst_and_both_comparisons() -> None:
    errors = {**dict.fromkeys(ARMS, MIDDLE), "full pre-activation": LOW, "BN after ReLU": HIGH}
    said = STUDY.answer(results_of(STUDY, errors)).verdict
    assert said.startswith("The lowest test error has full pre-activation (5.10 ± 0.10 %), the highest BN after ReLU")
    assert "full pre-activation has a test error of 5.10 %, original of 8.10 %: 3.00 points less" in said
    assert "BN after ReLU has a test error of 34.00 %, original of 8.10 %: 25.90 points more" in said
    turned = {**dict.fromkeys(ARMS, MIDDLE), "full pre-activation": HIGH, "BN after ReLU": FAILED}
    said = STUDY.answer(results_of(STUDY, turned)).verdict
    assert "the highest full pre-activation" in said
    assert "BN after ReLU did not train" in said


def test_published_errors_stand_beside_where_all_is_the_same_and_nowhere_else() -> None:
    errors = dict.fromkeys(ARMS, LOW)
    whole = STUDY.answer(results_of(STUDY, errors, scale="paper", data="cifar10", facts=CIFAR)).table
    assert [row["published [%]"] for row in whole.records()] == [6.61, 8.17, 7.84, 6.71, 6.37, None]
    for part in (results_of(STUDY, errors), results_of(STUDY, errors, scale="paper", data="cifar100", facts=CIFAR)):
        assert "published [%]" not in STUDY.answer(part).table.columns


def test_on_the_digits_every_order_trains(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    assert all(found.results.spread(arm, "train_error").mean < 10 for arm in ARMS)
    assert "original of" in found.finding.verdict
