"""`residuum reproduce` from the outside: what it says before it starts, makes and refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from verbs import said

from residuum.data.facts import DataFacts
from residuum.studies.reproduce import REPRODUCTIONS
from residuum.studies.study import Arm, Plan, ScaleName

SHORT = ["--set", "iterations=2", "--set", "data.augmentation.pad_and_crop=0"]


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 6 with one network of 8 layers in the place of all of its."""
    table6 = REPRODUCTIONS["table6"]

    def plan(scale: ScaleName, facts: DataFacts) -> Plan:
        whole = table6.study.plan(scale, facts)
        return replace(whole, arms=tuple(map(_of_8_layers, whole.arms)))

    monkeypatch.setitem(REPRODUCTIONS, "table6", replace(table6, study=replace(table6.study, plan=plan)))


def _of_8_layers(arm: Arm) -> Arm:
    assert arm.run is not None
    return replace(arm, run=replace(arm.run, model=replace(arm.run.model, name="resnet8")))


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "reproduce", "--json")
    names = [one["name"] for one in json.loads(out)["reproductions"]]
    assert names == ["table2", "table3", "table6", "figure4", "figure6", "figure7", "he2016-table1", "he2016-table2"]
    assert "table6" in said(capsys, "reproduce")[0]


def test_a_dry_run_says_what_differs_and_costs_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capsys, "reproduce", "table6", "digits", "--dry-run", "-o", tmp_path / "studies", *SHORT)
    assert out == ""
    assert "differs: one process: batch normalisation over the 128 images" in err
    assert "differs: digits in the place of cifar10" in err
    assert "differs: --set iterations=2" in err
    assert "6 runs, 12 updates, 1,536 images seen" in err  # of one network, 110 layers with a warm-up
    assert "half as long or twice" in err
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("options", "told", "untold"),
    [
        ([], ["fp32 on today's kernels", "the mean of 3 seeds"], ["bf16", "one seed"]),
        (["--precision", "bf16", "--seeds", "1"], ["bf16 on today's kernels", "one seed"], ["fp32", "the mean of"]),
    ],
)
def test_seeds_and_precision_are_told_as_asked_for(
    options: list[str], told: list[str], untold: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = said(capsys, "reproduce", "table6", "digits", "--dry-run", "-o", tmp_path, *SHORT, *options)
    lines = [line for line in err.splitlines() if line.startswith("differs:")]
    assert all(any(line.startswith(f"differs: {one}") for line in lines) for one in told)
    assert not any(one in line for one in untold for line in lines)


def test_a_result_stands_beside_the_published_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--seeds", "1", "-j", "1", "--device", "cpu", "-o", tmp_path, *SHORT]
    out, err = said(capsys, "reproduce", "table6", "digits", "--json", *how)
    found = json.loads(out)
    assert [(row["arm"], row["published [%]"], row["runs"]) for row in found["table"]][:2] == [
        ("resnet-20", 8.75, 1),
        ("resnet-32", 7.51, 1),
    ]
    assert "other data" in found["verdict"]
    assert "2 runs, 4 updates" in err
    assert len([*tmp_path.glob("table6-digits-paper*/report.html")]) == 1
    text, err = said(capsys, "reproduce", "table6", "digits", *how)
    assert "nothing is left to train" in err
    assert "published [%]" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["table7"], "did you mean table6"),
        (["table2"], "name its folder after table2"),
        (["table2", "digits"], "8x8 pixels"),
        (["table6", "nowhere"], "no such file or folder"),
        (["table6", "digits", "--set", "no=1"], "unknown field"),
        (["table6", "digits", "--nproc", "3"], "cannot share batches of 128 evenly"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capsys, "reproduce", *arguments, code=2)
    assert out == ""
    assert err.count("\n") == 1, err
    assert named in err


def test_several_processes_normalise_each_over_its_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = said(capsys, "reproduce", "table6", "digits", "--dry-run", "--nproc", "2", "-o", tmp_path, *SHORT)
    assert "differs: 2 processes share each batch, and each normalises over its part of it" in err
    assert "differs: one process" not in err
