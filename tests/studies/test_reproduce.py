"""Published results: what is trained for them, and how measured and published are set against each other."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, made_up

from residuum.data.facts import DataFacts
from residuum.errors import UserError
from residuum.evaluation.published import CIFAR_10, IMAGENET
from residuum.records import Table
from residuum.studies.against_published import Figure, compared
from residuum.studies.engine import run_study
from residuum.studies.reproduce import REPRODUCTIONS, settled
from residuum.studies.results import Results
from residuum.studies.study import Finding, Plan, ScaleName
from residuum.training.recipes import make_run

TABLE_6 = REPRODUCTIONS["table6"]


def results(errors: dict[str, Sequence[float]], data: str | None = CIFAR_10) -> Results:
    measured = {
        arm: [{"top-1": one, "top-5": None, "images": 10_000, "data": data} for one in found]
        for arm, found in errors.items()
    }
    seeds = {arm: [(1.0, one) for one in found] for arm, found in errors.items()}
    return made_up(TABLE_6.study, seeds, scale="paper", data="cifar10", facts=CIFAR, measured=measured)


def row(finding: Finding, arm: str) -> dict[str, Any]:
    return next(row for row in finding.table.records() if row["arm"] == arm)


def answer(errors: dict[str, Sequence[float]], *figures: Figure, data: str | None = CIFAR_10) -> Finding:
    return compared(results(errors, data), title="", figures=figures, data=CIFAR_10)


def test_published_runs_decide_where_they_are_known() -> None:
    found = row(answer({"resnet-110": [6.5, 6.7, 6.3]}, Figure("resnet-110", 6.61, std=0.16, runs=5)), "resnet-110")
    s = 0.16 * math.sqrt(1 / 3 + 1 / 5)
    assert (found["s"], found["s from"], found["runs"]) == (pytest.approx(s), "published runs", 3)
    assert found["z"] == pytest.approx((6.5 - 6.61) / s)


def test_else_the_measured_runs_and_a_median_scatters_more_than_a_mean() -> None:
    errors = {"resnet-20": [8.5, 9.1, 8.2]}
    std = 0.45825757
    single = row(answer(errors, Figure("resnet-20", 8.75)), "resnet-20")
    assert single["s"] == pytest.approx(std * math.sqrt(1 / 3 + 1))
    assert single["s from"] == "measured runs"
    median = row(answer(errors, Figure("resnet-20", 8.75, runs=5, is_median=True)), "resnet-20")
    assert median["s"] == pytest.approx(std * math.sqrt(1 / 3 + math.pi / 2 / 5))


def test_else_the_test_set() -> None:
    found = row(answer({"resnet-20": [9.0]}, Figure("resnet-20", 8.75)), "resnet-20")
    assert found["s"] == pytest.approx(100 * math.sqrt(0.0875 * 0.9125 / 10_000))
    assert (found["s from"], found["±"]) == ("test set", None)


def test_the_verdict_counts_what_came_out_again_and_names_the_farthest() -> None:
    figures = [Figure("resnet-20", 8.75), Figure("resnet-32", 7.51), Figure("resnet-110", 6.61, std=0.16, runs=5)]
    errors = {"resnet-20": [8.70], "resnet-32": [9.51], "resnet-110": [6.60, 6.70]}
    said = answer(errors, *figures).verdict
    assert said.startswith("2 of 3 published errors come out again within two standard errors")
    assert "Farthest off is resnet-32 (top-1): 9.51 % against 7.51 % (z = +7.6)." in said
    assert "0.66 points above" in said
    low = answer({arm: [one - 3 for one in found] for arm, found in errors.items()}, *figures).verdict
    assert low.startswith("0 of 3")
    assert "points below" in low


def test_a_printed_failure_and_a_network_that_diverged_have_no_z() -> None:
    finding = answer({"resnet-20": [80.0]}, Figure("resnet-20", None, word="fails"), Figure("resnet-32", 7.51))
    assert (row(finding, "resnet-20")["published [%]"], row(finding, "resnet-20")["z"]) == ("fails", None)
    assert (row(finding, "resnet-32")["measured [%]"], row(finding, "resnet-32")["runs"]) == (None, 0)
    assert finding.verdict == "No network with a printed figure was trained to its end."


def test_other_data_are_never_set_against_the_papers() -> None:
    finding = answer({"resnet-20": [9.0, 9.2]}, Figure("resnet-20", 8.75), data=None)
    assert "other data" in finding.verdict
    assert row(finding, "resnet-20")["z"] is None
    assert "no z" in finding.notes[0]


def _of_8_layers(scale: ScaleName, facts: DataFacts) -> Plan:
    """Table 6 with one network in the place of all."""
    whole = TABLE_6.study.plan(scale, facts)
    run = whole.arms[0].run
    assert run is not None
    shallow = replace(run, model=replace(run.model, name="resnet8"))
    return replace(whole, arms=tuple(replace(arm, run=shallow) for arm in whole.arms))


def test_the_measurement_is_the_runs_own_where_the_protocol_is(tmp_path: Path) -> None:
    changes = ["iterations=4", "data.augmentation.pad_and_crop=0"]
    study = replace(TABLE_6.study, plan=_of_8_layers)
    found = run_study(study, "digits", scale="paper", seeds=1, out=tmp_path, overrides=changes)
    one = found.results.outcomes["resnet-20"][0]
    assert one.measured["top-1"] == pytest.approx(one.test_error)
    assert (one.measured["data"], one.measured["images"], one.measured["protocol"]) == (None, 359, "1-crop 8")
    assert "other data" in found.finding.verdict


# What is trained for each.


def _cifar_figures(name: str) -> tuple[Figure, ...]:
    figures: tuple[Figure, ...] = REPRODUCTIONS[name].study.answer.keywords["figures"]  # type: ignore[attr-defined]
    return figures


@pytest.mark.parametrize("name", ["table2", "table3", "table6", "he2016-table1", "he2016-table2"])
def test_every_printed_figure_has_its_arm_and_every_arm_its_figure(name: str) -> None:
    facts = CIFAR if REPRODUCTIONS[name].data else PHOTOGRAPHS
    arms = {arm.name for arm in REPRODUCTIONS[name].study.plan("paper", facts).arms}
    assert arms == {figure.arm for figure in _cifar_figures(name)}


def test_the_figures_are_those_of_the_papers() -> None:
    printed = {name: {(one.arm, one.top): one.error for one in _cifar_figures(name)} for name in ("table2", "table3")}
    assert printed["table2"] == {
        ("plain-18", "top-1"): 27.94,
        ("plain-34", "top-1"): 28.54,
        ("resnet-18", "top-1"): 27.88,
        ("resnet-34", "top-1"): 25.03,
    }
    assert len(printed["table3"]) == 14
    assert printed["table3"]["resnet-34 C", "top-5"] == 7.40
    assert [one.error for one in _cifar_figures("table6")] == [8.75, 7.51, 7.17, 6.97, 6.61]


def test_imagenets_tables_look_at_ten_crops_of_networks_with_the_printed_shortcuts() -> None:
    arms = {arm.name: arm for arm in REPRODUCTIONS["table3"].study.plan("paper", PHOTOGRAPHS).arms}
    assert {arm.settings["protocol"] for arm in arms.values()} == {"10-crop"}
    runs = {name: arm.run.model for name, arm in arms.items() if arm.run is not None}
    assert [runs[f"resnet-34 {kind}"].shortcut for kind in "ABC"] == ["A", None, "C"]  # B is the network's own
    assert runs["resnet-50"].name == "resnet50"
    twins = REPRODUCTIONS["table2"].study.plan("paper", PHOTOGRAPHS).arms
    assert [arm.run.model.shortcut for arm in twins if arm.run is not None] == [None, None, "A", "A"]


@pytest.mark.parametrize("name", ["table2", "table3", "figure4"])
def test_what_is_of_imagenet_is_refused_on_small_images(name: str) -> None:
    assert REPRODUCTIONS[name].data is None
    with pytest.raises(UserError, match="8x8 pixels; name ImageNet's folder"):
        REPRODUCTIONS[name].study.plan("paper", DIGITS)


def test_what_is_trained_is_the_published_recipe() -> None:
    for name, recipe in (
        ("table6", "he2015-cifar"),
        ("he2016-table1", "he2016-cifar"),
        ("he2016-table2", "he2016-cifar"),
    ):
        for arm in REPRODUCTIONS[name].study.plan("paper", CIFAR).arms:
            assert arm.run is not None
            given = make_run(recipe, CIFAR, arm.run.model.name)
            assert arm.run.to_dict() == {
                **given.to_dict(),
                "recipe": arm.run.recipe,
                "model": arm.run.to_dict()["model"],
            }


def test_figures_share_their_runs_with_tables() -> None:
    curves = {arm.name: arm.run for arm in REPRODUCTIONS["figure6"].study.plan("paper", CIFAR).arms}
    assert all(curves[arm.name] == arm.run for arm in TABLE_6.study.plan("paper", CIFAR).arms)
    assert {*REPRODUCTIONS} >= {"figure4", "figure6", "figure7"}
    assert all("prints no figures" in REPRODUCTIONS[name].differs[-1] for name in ("figure4", "figure6", "figure7"))


def test_seeds_and_precision_are_told_as_they_are() -> None:
    plan = REPRODUCTIONS["figure4"].study.plan("paper", PHOTOGRAPHS)
    assert plan.seeds == REPRODUCTIONS["table2"].study.plan("paper", PHOTOGRAPHS).seeds == 1
    first = plan.arms[0].run
    assert first is not None
    fast = replace(plan, arms=(replace(plan.arms[0], run=replace(first, precision="bf16")),), seeds=3)
    assert settled(fast) == ("bf16 on today's kernels", "the mean of 3 seeds")
    assert settled(plan)[1].startswith("one seed")
    assert first.precision == "fp32"


def test_each_has_a_title_a_source_and_says_what_differs() -> None:
    for name, one in REPRODUCTIONS.items():
        assert one.study.name == name
        assert one.study.source.startswith("He et al.")
        assert one.study.question.endswith("?")
        assert any("batch normalisation" in line for line in one.differs)
    assert isinstance(answer({"resnet-20": [9.0]}, Figure("resnet-20", 8.75)).table, Table)
    assert _cifar_figures("table2")[0].arm == "plain-18"
    assert IMAGENET != CIFAR_10
