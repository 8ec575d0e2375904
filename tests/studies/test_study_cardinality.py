"""`cardinality`: the plan asks for one thing, the answer follows the numbers, and the digits give a real one."""

from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, Errors
from question_results import FAILED, HIGH, LOW, MIDDLE, differing, results_of

from residuum.data.facts import DataFacts
from residuum.studies.cardinality import STUDY, plan
from residuum.studies.engine import run_study
from residuum.studies.study import ScaleName
from residuum.studies.work import size_of

ARMS = ["1x64d", "2x40d", "4x24d", "8x14d", "32x4d"]


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_the_arms_differ_in_the_network_alone_and_cost_the_same(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert [arm.name for arm in asked.arms] == ARMS
    assert differing(asked) == {"model.name"}
    sizes = [size_of(arm.run, 10) for arm in asked.arms if arm.run is not None]
    for counts in ([size.parameters for size in sizes], [size.multiply_adds for size in sizes]):
        assert max(counts) < 1.06 * min(counts)


@pytest.mark.parametrize(
    ("one", "many", "said"),
    [
        (HIGH, LOW, "32x4d has a test error of 5.10 %, 1x64d of 34.00 %: 28.90 points less"),
        (LOW, HIGH, "32x4d has a test error of 34.00 %, 1x64d of 5.10 %: 28.90 points more"),
        (LOW, FAILED, "32x4d did not train"),
    ],
)
def test_the_verdict_is_made_from_the_numbers(one: Errors, many: Errors, said: str) -> None:
    finding = STUDY.answer(results_of(STUDY, dict.fromkeys(ARMS, MIDDLE) | {"1x64d": one, "32x4d": many}))
    assert said in finding.verdict
    assert all(row["multiply-adds"] for row in finding.table.records())


def test_on_the_digits_every_cardinality_trains(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    assert all(found.results.spread(arm, "test_error").mean < 45 for arm in ARMS)
    (line,) = found.finding.charts[0].panels[0]
    assert line.x == (1.0, 2.0, 4.0, 8.0, 32.0)
