"""`additive-gradient`: the measure equals the product of Jacobians and the theory; the answer follows the numbers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from depth_results import DIGITS
from question_results import results_of

from residuum.errors import UserError
from residuum.studies.additive_gradient import STUDY, gradient_ratio, growth, linear_chain, plan
from residuum.studies.engine import prepare, run_study

NAMES = [arm.name for arm in plan("smoke", DIGITS).arms]
LAYERS = [2, 10, 100]


@pytest.mark.parametrize("added", [False, True])
def test_the_gradient_is_that_of_the_product_of_jacobians(added: bool) -> None:
    torch.manual_seed(0)
    chain, start = linear_chain(3, 4, 0.9, added=added), torch.randn(4, dtype=torch.float64)
    direction = torch.randn(4, dtype=torch.float64)
    product, x = torch.eye(4, dtype=torch.float64), start
    for function in chain:
        product = torch.autograd.functional.jacobian(function, x) @ product
        x = function(x)
    expected = (product.T @ direction).norm() / direction.norm()
    assert gradient_ratio(chain, start, direction) == pytest.approx(float(expected), rel=1e-12)


def test_the_added_chains_gradient_is_the_sum_over_all_paths() -> None:
    """(1 + J2) (1 + J1) = 1 + J1 + J2 + J2 J1: the first path is there whatever the functions do."""
    torch.manual_seed(1)
    start = torch.randn(3, dtype=torch.float64)
    chain = linear_chain(2, 3, 0.5, added=True)
    jacobian = torch.autograd.functional.jacobian
    whole = jacobian(lambda x: chain[1](chain[0](x)), start)
    one = torch.eye(3, dtype=torch.float64)
    first, second = jacobian(chain[0], start) - one, jacobian(chain[1], chain[0](start)) - one
    assert torch.allclose(whole, one + first + second + second @ first, atol=1e-14)


def test_growth_is_the_factor_a_layer() -> None:
    assert growth([1, 2, 5], [3 * 0.5**depth for depth in (1, 2, 5)]) == pytest.approx(0.5)
    assert math.isnan(growth([1, 2], [1.0, 0.0]))


def measured(deepest: Sequence[float]) -> list[dict[str, Any]]:
    """Of seeds whose gradient after 100 layers is this."""
    return [
        {"layers": LAYERS, "gradient": [one ** (layers / 100) for layers in LAYERS], "factor": one**0.01}
        for one in deepest
    ]


@pytest.mark.parametrize(
    ("composed", "added", "said"),
    [
        (1e-9, 5.0, "With the input added it vanishes in none."),
        (1e-9, 1e-9, "Even with the input added it vanishes in linear, gain 0.2"),
        (1e9, 1e9, "With the input added it vanishes in none."),
    ],
)
def test_the_verdict_is_made_from_the_numbers(composed: float, added: float, said: str) -> None:
    values = {name: measured([added if "x + g" in name else composed] * 3) for name in NAMES}
    finding = STUDY.answer(results_of(STUDY, {}, measured=values))
    assert said in finding.verdict
    fate = "vanishes" if composed < 1 else "explodes"
    assert f"Over 100 layers of y = g(x) the gradient {fate} in linear, gain 0.2 (x {composed:.1e})" in finding.verdict
    assert [len(panel) for panel in finding.charts[0].panels] == [5, 5]


def test_a_gradient_beyond_all_numbers_explodes_and_only_zero_is_zero() -> None:
    """JSON has no infinity: None stands for it."""
    values: dict[str, Any] = {name: measured([1.0] * 3) for name in NAMES}
    values[NAMES[0]][1] = {"layers": LAYERS, "gradient": [1.0, 1e200, None], "factor": None}
    values[NAMES[2]][1] = {"layers": LAYERS, "gradient": [1.0, 1e-200, 0.0], "factor": None}
    finding = STUDY.answer(results_of(STUDY, {}, measured=values))
    assert f"explodes in {NAMES[0].partition(':')[0]} (x inf)" in finding.verdict
    assert f"vanishes in {NAMES[2].partition(':')[0]} (x 0.0e+00)" in finding.verdict
    assert math.isnan(finding.charts[0].panels[0][0].y[-1])
    assert math.isnan(growth([1, 2], [1.0, math.inf]))


def test_what_decides_the_numbers_is_among_the_settings() -> None:
    for arm in plan("smoke", DIGITS).arms:
        assert {"layers", "side", "images"} <= arm.settings.keys()


def test_composed_the_gradient_vanishes_below_gain_one_and_added_it_does_not(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    rows = {row["arm"]: row for row in found.finding.table.records()}
    deepest = {arm: float(str(row["gradient after 100 layers"])) for arm, row in rows.items()}
    assert deepest["linear, gain 0.8: y = g(x)"] < 1e-8
    assert all(ratio > 1 for arm, ratio in deepest.items() if "x + g" in arm)
    assert deepest["basic unit, with BN: y = x + g(x)"] < 1_000
    for arm, row in rows.items():
        if row["expected"] is not None:
            assert row["factor a layer"] == pytest.approx(row["expected"], rel=0.02), arm
    assert found.finding.verdict.endswith("With the input added it vanishes in none.")


def test_what_no_arm_has_cannot_be_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set epochs: no arm of additive-gradient has it; leave it out"):
        prepare(STUDY, scale="smoke", out=tmp_path, overrides=["epochs=1"])
