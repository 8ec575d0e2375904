"""`responses`: what is measured of a trained network, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from depth_results import CIFAR, made_up

from residuum.data.facts import DataFacts
from residuum.data.sources import open_data
from residuum.records import Table
from residuum.studies import degradation
from residuum.studies.engine import run_study
from residuum.studies.probing import training_batch
from residuum.studies.responses import STUDY, measure, plan
from residuum.studies.samples import draw
from residuum.studies.settings import base_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study
from residuum.weights import load


def _tiny(scale: ScaleName, facts: DataFacts) -> Plan:
    plain = base_run(scale, facts, "plain8", "epochs=1")
    bare = base_run(scale, facts, "resnet8", "epochs=1", "model.normalisation=none", "optimizer.lr=0.001")
    arms = (Arm(name, run, measure, {"images": 50}) for name, run in (("plain", plain), ("bare", bare)))
    return Plan(tuple(arms), train_images=200, test_images=100, seeds=1)


def test_the_response_of_a_layer_is_taken_after_its_normalisation_or_without_one_after_itself(tmp_path: Path) -> None:
    study = Study("tiny", "?", "", _tiny, lambda results: Finding("", Table("", ("arm",), ()), ()))
    found = run_study(study, scale="smoke", out=tmp_path).results
    plain, bare = (found.outcomes[arm][0] for arm in ("plain", "bare"))
    assert plain.measured["layers"][:3] == ["bn1", "layer1.0.bn1", "layer1.0.bn2"]
    assert bare.measured["layers"][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    classifier = load(plain.folder)
    images, _ = training_batch(draw(open_data("digits"), 200, 100), classifier.preprocessing, 50)
    seen: list[torch.Tensor] = []
    layer = classifier.network.get_submodule("layer1.0.bn2")
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        classifier.network(images)
    assert plain.measured["std"][2] == pytest.approx(float(seen[0].std(correction=0)), rel=1e-3)


def test_the_runs_are_those_of_degradation_and_the_depths_those_of_the_figure() -> None:
    trained = {arm.name: arm.run for arm in degradation.plan("paper", CIFAR).arms}
    arms = plan("paper", CIFAR).arms
    assert [arm.name for arm in arms] == ["plain-20", "plain-56", "resnet-20", "resnet-56", "resnet-110"]
    assert all(arm.run == trained[arm.name] for arm in arms)


def _rows(**means: list[float]) -> dict[str, list[dict[str, object]]]:
    shape = np.array([1.5, 0.5, 1.0])
    return {
        arm.replace("_", "-"): [{"layers": ["a", "b", "c"], "std": (mean * shape).tolist()} for mean in found]
        for arm, found in means.items()
    }


@pytest.mark.parametrize(
    ("plain", "residual", "said"),
    [
        ([1.0, 1.1, 1.0], [0.5, 0.6, 0.4], "resnet-56 responds less than plain-56 (0.500 against 1.033"),
        ([1.0, 1.1, 1.0], [1.5, 1.6, 1.4], "resnet-56 does not respond less than plain-56"),
        ([1.0, 1.1, 1.0], [0.5, 1.6, 0.4], "resnet-56 does not clearly respond less than plain-56"),
        ([1.0], [0.5], "responds less than plain-56 (0.500 against 1.000 on average, one seed)"),
    ],
)
def test_the_verdict_is_made_from_the_numbers(plain: list[float], residual: list[float], said: str) -> None:
    measured = _rows(plain_20=plain, plain_56=plain, resnet_20=residual, resnet_56=residual)
    errors = {arm: [(1.0, 2.0)] * len(found) for arm, found in measured.items()}
    assert said in STUDY.answer(made_up(STUDY, errors, measured=measured)).verdict


def test_seeds_are_compared_with_themselves_and_none_with_what_is_no_number() -> None:
    means = [1.0, 2.0, 3.0]
    measured = _rows(plain_20=means, plain_56=means, resnet_20=[1.5, 2.5], resnet_56=[0.5, 0.5, 0.5])
    errors = {arm: [(1.0, 2.0)] * len(found) for arm, found in measured.items()}
    results = made_up(STUDY, errors, measured=measured)
    second, third = (replace(one, seed=one.seed + 1) for one in results.outcomes["resnet-20"])  # the first diverged
    results = replace(results, outcomes={**results.outcomes, "resnet-20": (second, third)})
    said = STUDY.answer(results).verdict
    assert "resnet-20 responds less than plain-20 (2.000 against 2.500 on average, with each of 2 seeds)" in said


def test_what_is_no_number_does_not_count_as_larger() -> None:
    measured = _rows(plain_20=[1.0, 1.0], plain_56=[1.0, 1.0], resnet_20=[0.5, 0.5], resnet_56=[0.4, 0.4])
    measured["resnet-20"][1] = measured["plain-56"][0] = measured["plain-56"][1] = {"std": [None, 1.0, 1.0]}
    errors = {arm: [(1.0, 2.0)] * 2 for arm in measured}
    finding = STUDY.answer(made_up(STUDY, errors, measured=measured))
    assert "resnet-20 responds less than plain-20 (0.500 against 1.000 on average, one seed, 1 more" in finding.verdict
    assert "resnet-56 cannot be compared with plain-56: no seed of both has finite responses" in finding.verdict
    assert finding.table.rows[1][2:] == (None, None, None, None, None, 0)


def test_the_figure_has_the_layers_in_order_and_sorted() -> None:
    measured = _rows(plain_20=[1.0, 2.0], plain_56=[1.0, 2.0], resnet_20=[0.5, 0.5], resnet_56=[0.4, 0.4])
    errors = {arm: [(1.0, 2.0)] * 2 for arm in measured}
    (chart,) = STUDY.answer(made_up(STUDY, errors, measured=measured)).charts
    in_order, by_size = (panel[0] for panel in chart.panels)
    assert in_order.y == (2.25, 0.75, 1.5)
    assert by_size.y == (2.25, 1.5, 0.75)
    assert in_order.spread[0] == pytest.approx(np.std([1.5, 3.0], ddof=1))


def test_without_a_trained_network_there_is_nothing_to_compare() -> None:
    finding = STUDY.answer(made_up(STUDY, {}))
    assert "nothing to compare" in finding.verdict
    assert finding.charts == ()
