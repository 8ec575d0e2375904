"""`classics`: one budget for all, the answer follows the numbers, and the digits give a real one."""

from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS
from question_results import FAILED, HIGH, LOW, MIDDLE, differing, results_of

from residuum.data.facts import DataFacts
from residuum.studies.classics import STUDY, plan
from residuum.studies.engine import run_study
from residuum.studies.study import ScaleName

ARMS = ["LeNet-5", "AlexNet", "VGG-11", "GoogLeNet", "ResNet-18", "DenseNet-121", "ResNeXt-50"]
SMOKE = ["LeNet-5", "GoogLeNet", "ResNet-18", "DenseNet-121"]


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_the_arms_differ_in_the_network_and_its_rate(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert [arm.name for arm in asked.arms] == (SMOKE if scale == "smoke" else ARMS)
    assert differing(asked) == {"model.name", "optimizer.lr"}
    runs = {arm.name: arm.run for arm in asked.arms if arm.run is not None}
    assert all(run.data.size >= 64 for run in runs.values())
    assert runs["ResNet-18"].optimizer.lr == runs["DenseNet-121"].optimizer.lr > runs["LeNet-5"].optimizer.lr


def test_at_the_papers_scale_networks_without_batch_normalisation_have_the_rate_of_their_papers() -> None:
    runs = {arm.name: arm.run for arm in plan("paper", CIFAR).arms if arm.run is not None}
    assert runs["AlexNet"].optimizer.lr == runs["VGG-11"].optimizer.lr == 0.01
    assert runs["ResNet-18"].optimizer.lr == 0.1


def test_the_verdict_names_the_best_the_smallest_and_the_fastest() -> None:
    found = results_of(STUDY, {"LeNet-5": HIGH, "GoogLeNet": MIDDLE, "ResNet-18": LOW, "DenseNet-121": FAILED})
    said = STUDY.answer(found).verdict
    assert said.startswith("The lowest test error has ResNet-18 (5.10 ± 0.10 %), the highest LeNet-5")
    assert "DenseNet-121 did not train" in said
    assert "LeNet-5 has the fewest parameters, 60,850" in said
    turned = results_of(STUDY, {"LeNet-5": LOW, "GoogLeNet": MIDDLE, "ResNet-18": HIGH, "DenseNet-121": MIDDLE})
    assert "The lowest test error has LeNet-5" in STUDY.answer(turned).verdict


def test_on_the_digits_the_residual_network_learns_soon(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    errors = {arm: found.results.spread(arm, "test_error").mean for arm in SMOKE}
    assert errors["ResNet-18"] < 25
    assert errors["ResNet-18"] < errors["LeNet-5"]
    rows = {row["arm"]: row for row in found.finding.table.records()}
    assert rows["LeNet-5"]["parameters"] == 60_850
    assert all(row["images/s"] for row in rows.values())
