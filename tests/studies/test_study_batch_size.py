"""`batch-size`: the plan asks for one thing, the answer follows the numbers, and the digits give a real one."""

from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, Errors
from question_results import FAILED, HIGH, LOW, MIDDLE, differing, results_of

from residuum.data.facts import DataFacts
from residuum.studies.batch_size import STUDY, plan
from residuum.studies.engine import run_study
from residuum.studies.study import ScaleName

ARMS = [arm.name for arm in plan("smoke", DIGITS).arms]
SAME, SCALED = "1024, same rate", "1024, rate x 16"


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_the_arms_differ_in_batch_and_rate_and_last_equally_long(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert len(asked.arms) == 7  # at 64 images both rules are one
    assert differing(asked) == {"batch_size", "optimizer.lr", "schedule.warmup_steps", "schedule.warmup_lr"}
    assert all(arm.run is not None and arm.run.epochs is not None for arm in asked.arms)


def test_the_linear_rule_takes_the_rate_in_proportion_and_warms_up_to_it() -> None:
    runs = {arm.name: arm.run for arm in plan("small", CIFAR).arms if arm.run is not None}
    reference = runs["64"].optimizer.lr
    assert runs[SAME].optimizer.lr == reference
    assert runs[SCALED].optimizer.lr == pytest.approx(16 * reference)
    assert runs["16, rate x 0.25"].optimizer.lr == pytest.approx(reference / 4)
    assert runs[SCALED].schedule.warmup_lr == reference
    assert runs["16, rate x 0.25"].schedule.warmup_steps == runs[SAME].schedule.warmup_steps == 0


@pytest.mark.parametrize(
    ("same", "scaled", "said"),
    [
        (HIGH, LOW, "1024, rate x 16 has a test error of 5.10 %, 1024, same rate of 34.00 %: 28.90 points less"),
        (LOW, HIGH, "1024, rate x 16 has a test error of 34.00 %, 1024, same rate of 5.10 %: 28.90 points more"),
        (LOW, FAILED, "1024, rate x 16 did not train"),
    ],
)
def test_the_verdict_is_made_from_the_numbers(same: Errors, scaled: Errors, said: str) -> None:
    errors = dict.fromkeys(ARMS, MIDDLE) | {SAME: same, SCALED: scaled}
    finding = STUDY.answer(results_of(STUDY, errors))
    assert said in finding.verdict
    proportional, equal = finding.charts[0].panels[0]
    assert equal.x == (4.0, 6.0, 8.0, 10.0)
    assert len(proportional.x) == (4 if scaled else 3)


def test_what_did_not_train_took_no_number_of_updates() -> None:
    finding = STUDY.answer(results_of(STUDY, dict.fromkeys(ARMS, MIDDLE) | {SCALED: FAILED}))
    assert "What the same epochs took: 16, rate x 0.25, 22 updates in 2.0 s; 1024, rate x 16, did not train." in (
        finding.verdict
    )
    rows = {row["arm"]: (row["updates"], row["seconds"]) for row in finding.table.records()}
    assert (rows[SCALED], rows[SAME]) == ((None, None), (22, 2.0))


def test_on_the_digits_large_batches_need_the_higher_rate(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    trained = {arm: found.results.spread(arm, "train_error").mean for arm in ARMS}
    assert trained[SAME] > trained[SCALED] + 5
    assert trained[SAME] > trained["16, same rate"] + 10
    updates = {row["arm"]: row["updates"] for row in found.finding.table.records()}
    assert (updates["16, same rate"], updates[SAME]) == (12 * 89, 12)
