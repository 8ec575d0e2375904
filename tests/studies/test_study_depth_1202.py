"""`depth-1202`: what its arms are, and what is said of them."""

import pytest
from depth_results import CIFAR, DIGITS, Errors, made_up

from residuum.studies.depth_1202 import STUDY, plan

SHALLOW: Errors = [(0.05, 3.0), (0.06, 3.2), (0.04, 3.1)]


@pytest.mark.parametrize(
    ("shallow", "deep", "said"),
    [
        (SHALLOW, [(0.02, 6.0), (0.01, 6.5), (0.03, 6.1)], "below 0.1 % as in the paper"),
        (SHALLOW, [(0.02, 6.0), (0.01, 6.5), (0.03, 6.1)], "trains no worse, so that this is overfitting"),
        (SHALLOW, [(2.0, 6.0), (2.1, 6.5), (1.9, 6.1)], "not below 0.1 % as in the paper"),
        (SHALLOW, [(2.0, 6.0), (2.1, 6.5), (1.9, 6.1)], "overfitting is not shown"),
        (SHALLOW, [(70.0, 75.0), (72.0, 76.0), (71.0, 74.0)], "hardly trains here"),
        (SHALLOW, [(0.02, 3.1), (0.01, 3.3), (0.03, 3.0)], "may be chance"),
        (SHALLOW, [(0.02, 1.0), (0.01, 1.3), (0.03, 1.1)], "Against the paper, the deeper network tests better"),
        (SHALLOW[:1], [(0.02, 6.0)], "Whether that is more than chance is not tested"),
        (SHALLOW, [], "resnet-200 does not train: its loss is no number"),
        ([], SHALLOW, "resnet-20 does not train: its loss is no number"),
    ],
)
def test_the_verdict_is_made_from_the_numbers(shallow: Errors, deep: Errors, said: str) -> None:
    assert said in STUDY.answer(made_up(STUDY, {"resnet-20": shallow, "resnet-200": deep})).verdict


def test_of_a_network_that_learns_nothing_no_overfitting_is_told() -> None:
    deep: Errors = [(70.0, 75.0), (72.0, 76.0), (71.0, 74.0)]
    verdict = STUDY.answer(made_up(STUDY, {"resnet-20": SHALLOW, "resnet-200": deep})).verdict
    assert "points more (p" in verdict
    assert "overfitting" not in verdict


def test_without_a_test_of_chance_none_is_claimed() -> None:
    verdict = STUDY.answer(made_up(STUDY, {"resnet-20": SHALLOW[:1], "resnet-200": [(0.02, 6.0)]})).verdict
    assert "may be chance" not in verdict


def test_the_papers_networks_stand_beside_their_figures() -> None:
    arms = plan("paper", CIFAR).arms
    assert [arm.name for arm in arms] == ["resnet-110", "resnet-1202"]
    errors = {"resnet-110": SHALLOW, "resnet-1202": SHALLOW}
    table = STUDY.answer(made_up(STUDY, errors, scale="paper", data="cifar10", facts=CIFAR)).table
    assert [row["published test error [%]"] for row in table.records()] == [6.43, 7.93]


def test_both_arms_of_each_scale_have_one_setting() -> None:
    for scale in ("smoke", "small"):
        first, second = (arm.run.to_dict() for arm in plan(scale, DIGITS).arms if arm.run is not None)  # type: ignore[arg-type]
        assert {**first, "model": None} == {**second, "model": None}
