"""`normalisation`: the plan asks for one thing, the answer follows the numbers, and the digits give a real one."""

from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, Errors
from question_results import CHANCE, FAILED, LOW, MIDDLE, differing, results_of

from residuum.data.facts import DataFacts
from residuum.studies.engine import run_study
from residuum.studies.normalisation import STUDY, plan
from residuum.studies.study import ScaleName

SLOWER = "none, a tenth of the rate"


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_the_arms_differ_in_the_normalisation_and_one_in_its_rate_too(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert [arm.name for arm in asked.arms] == ["batch", "layer", "group", "none", SLOWER]
    assert differing(asked) == {"model.normalisation", "optimizer.lr"}
    rates = [arm.run.optimizer.lr for arm in asked.arms if arm.run is not None]
    assert rates == [0.1, 0.1, 0.1, 0.1, 0.01]


@pytest.mark.parametrize(
    ("none", "slower", "said"),
    [
        (FAILED, LOW, "it diverges at the same rate and trains to 1.03 ± 0.15 % training error at a tenth"),
        (CHANCE, LOW, "it stays at chance at the same rate and trains to"),
        (LOW, FAILED, "it trains to 1.03 ± 0.15 % training error at the same rate and diverges at a tenth"),
    ],
)
def test_what_happens_without_normalisation_is_read_off_the_numbers(none: Errors, slower: Errors, said: str) -> None:
    errors = {"batch": LOW, "layer": MIDDLE, "group": MIDDLE, "none": none, SLOWER: slower}
    finding = STUDY.answer(results_of(STUDY, errors))
    assert said in finding.verdict
    assert "layer has a test error of 8.10 %, batch of 5.10 %: 3.00 points more" in finding.verdict
    assert len(finding.table.rows) == 5


def test_another_normalisation_may_be_better() -> None:
    errors = {"batch": MIDDLE, "layer": LOW, "group": MIDDLE, "none": CHANCE, SLOWER: CHANCE}
    said = STUDY.answer(results_of(STUDY, errors)).verdict
    assert said.startswith("The lowest test error has layer")
    assert "layer has a test error of 5.10 %, batch of 8.10 %: 3.00 points less" in said


def test_on_the_digits_the_network_needs_normalisation_or_a_lower_rate(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    trained = {arm: found.results.spread(arm, "train_error") for arm in found.results.outcomes}
    assert all(trained[kind].mean < 10 for kind in ("batch", "layer", "group", SLOWER))
    assert trained["none"].n == 0 or trained["none"].mean > 80
