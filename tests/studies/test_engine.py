"""The engine: what is made once is never made again, however it is made, and what lies in the folder is whole."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from trial import TRIAL

from residuum.data.facts import DataFacts
from residuum.errors import UserError
from residuum.records import Table
from residuum.studies.engine import MEMBERS, RECORD, StudyResult, conclude, make_members, prepare, run_study
from residuum.studies.makers import Look, MemberError, quietly
from residuum.studies.members import describe
from residuum.studies.results import Results
from residuum.studies.study import Finding, Plan, ScaleName, Study


def refuse(folders: Sequence[Path], look: Look) -> None:
    raise AssertionError(f"{len(folders)} members are made again")


def test_a_study_makes_every_arm_with_every_seed(trial: StudyResult) -> None:
    assert {arm: [one.seed for one in found] for arm, found in trial.results.outcomes.items()} == {
        "plain": [0, 1],
        "residual": [0, 1],
        "counting": [0, 1],
    }
    assert trial.prepared.counts == {"train": 601, "test": 100}
    for one in trial.results.outcomes["plain"]:
        assert one.evaluations["test"].images == 100
        assert one.metrics[0]["images"] == 9 * 64
        assert 0 < one.test_error < 100


def test_seeds_differ_and_nothing_else_does(trial: StudyResult) -> None:
    first, second = trial.results.outcomes["plain"]
    assert first.folder != second.folder
    assert first.train_loss != second.train_loss
    runs = [json.loads((one.folder / "run.json").read_text())["run"] for one in (first, second)]
    assert [run.pop("seed") for run in runs] == [0, 1]
    assert runs[0] == runs[1]


def test_measures_are_taken_after_training_and_alone(trial: StudyResult) -> None:
    assert trial.results.outcomes["residual"][0].measured == {"has_model": True, "asked": 7}
    assert [one.measured for one in trial.results.outcomes["counting"]] == [
        {"images": 601, "seed": 0, "nothing": None},
        {"images": 601, "seed": 1, "nothing": None},
    ]


def test_a_study_that_is_made_is_only_read(trial: StudyResult) -> None:
    again = run_study(TRIAL, scale="smoke", out=trial.folder.parent, maker=refuse)
    assert again.finding == trial.finding


def test_only_what_is_missing_is_made(trial: StudyResult, tmp_path: Path) -> None:
    shutil.copytree(trial.folder.parent, tmp_path / "out")
    lost = trial.results.outcomes["residual"][1].folder.name
    shutil.rmtree(tmp_path / "out" / MEMBERS / lost)
    prepared = prepare(TRIAL, scale="smoke", out=tmp_path / "out")
    assert [folder.name for folder in prepared.missing] == [lost]
    make_members(prepared)
    assert conclude(prepared).finding == trial.finding  # the same bits as before


def test_a_lost_measurement_is_taken_again_without_training(trial: StudyResult, tmp_path: Path) -> None:
    shutil.copytree(trial.folder.parent, tmp_path / "out")
    folder = tmp_path / "out" / MEMBERS / trial.results.outcomes["residual"][0].folder.name
    (file,) = folder.glob("measured-*.json")
    file.unlink()
    weights = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    again = run_study(TRIAL, scale="smoke", out=tmp_path / "out")
    assert again.results.outcomes["residual"][0].measured == {"has_model": True, "asked": 7}
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == weights


def test_members_are_shared_between_studies(trial: StudyResult) -> None:
    other = Study("other", "?", "nobody", lambda scale, facts: _one_arm(trial), TRIAL.answer)
    prepared = prepare(other, scale="smoke", out=trial.folder.parent)
    assert prepared.missing == ()
    assert {folder for _, folder in prepared.members} <= {folder for _, folder in trial.prepared.members}


def _one_arm(trial: StudyResult) -> Plan:
    plan = trial.prepared.plan
    return Plan(plan.arms[:1], plan.train_images, plan.test_images, plan.seeds)


def test_the_files_hold_what_the_result_says(trial: StudyResult) -> None:
    record = json.loads((trial.folder / "study.json").read_text())
    assert record["verdict"] == trial.finding.verdict
    assert (record["scale"], record["data"], record["seeds"]) == ("smoke", "digits", 2)
    rows = list(csv.DictReader((trial.folder / "table.csv").open()))
    assert [row["arm"] for row in rows] == ["plain", "residual"]
    mean = trial.results.spread("plain", "test_error").mean
    assert float(rows[0]["test error [%]"]) == mean
    members = list(csv.DictReader((trial.folder / "members.csv").open()))
    assert [(row["arm"], row["seed"]) for row in members][:3] == [("plain", "0"), ("plain", "1"), ("residual", "0")]
    assert members[4]["test error [%]"] == ""  # nothing was trained
    assert all((trial.folder.parent / MEMBERS / row["folder"]).is_dir() for row in members)


def test_overrides_reach_every_run_and_make_other_members(trial: StudyResult) -> None:
    prepared = prepare(TRIAL, scale="smoke", out=trial.folder.parent, overrides=["optimizer.lr=0.05"], seeds=1)
    trained = [(member, folder) for member, folder in prepared.members if member.run is not None]
    assert [member.run.optimizer.lr for member, _ in trained if member.run] == [0.05, 0.05]
    assert {folder for _, folder in trained}.isdisjoint(folder for _, folder in trial.prepared.members)


def test_a_loss_that_is_no_number_is_a_result(tmp_path: Path) -> None:
    result = run_study(TRIAL, scale="smoke", out=tmp_path, seeds=1, overrides=["optimizer.lr=1e30"])
    (outcome,) = result.results.outcomes["plain"]
    assert outcome.status == "failed"
    assert "is nan at update" in outcome.reason or "is inf at update" in outcome.reason
    assert "cannot be compared" in result.finding.verdict
    assert any("1 seed of 1 did not train" in note for note in result.finding.table.notes)
    assert prepare(TRIAL, scale="smoke", out=tmp_path, seeds=1, overrides=["optimizer.lr=1e30"]).missing == ()


def test_what_cannot_be_trained_is_told_with_the_arm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plain, seed 0: .*memory.*"):
        make_members(prepare(TRIAL, scale="smoke", out=tmp_path), _out_of_memory)


def _out_of_memory(folders: Sequence[Path], look: Look) -> None:
    raise MemberError(folders[0], "memory ran out")


def test_data_that_have_changed_since_are_refused(tmp_path: Path) -> None:
    prepared = prepare(TRIAL, scale="smoke", out=tmp_path, seeds=1)
    (member, folder), *_ = prepared.members
    changed = replace(prepared, members=((replace(member, fingerprint="0" * 32), folder),))
    with pytest.raises(UserError, match="not what it was when the study began"):
        make_members(changed, look=quietly)


def test_several_measures_of_one_run_are_all_taken(trial: StudyResult, tmp_path: Path) -> None:
    """Of one study, and of two that want theirs at the same time."""
    residual = trial.prepared.plan.arms[1]
    arms = tuple(replace(residual, name=f"asked {number}", settings={"asked": number}) for number in (1, 2))

    def plan(scale: ScaleName, facts: DataFacts) -> Plan:
        return replace(trial.prepared.plan, arms=arms, seeds=1)

    def answer(results: Results) -> Finding:
        asked = [outcome.measured["asked"] for outcomes in results.outcomes.values() for outcome in outcomes]
        return Finding(str(asked), Table("", (), ()), ())

    both = Study("both", "?", "nobody", plan, answer)
    prepared = prepare(both, scale="smoke", out=tmp_path)
    for member, folder in prepared.members:
        describe(member, folder)
    for member, folder in prepare(TRIAL, scale="smoke", out=tmp_path, seeds=1).members:
        describe(member, folder)  # another study begins before the first has made anything
    make_members(prepared)
    assert conclude(prepared).finding.verdict == "[1, 2]"
    (folder,) = {folder for _, folder in prepared.members}
    assert len(list(folder.glob("measured-*.json"))) == 3


def test_a_damaged_measurement_says_what_to_do(trial: StudyResult, tmp_path: Path) -> None:
    shutil.copytree(trial.folder.parent, tmp_path / "out")
    folder = tmp_path / "out" / MEMBERS / trial.results.outcomes["counting"][0].folder.name
    (file,) = folder.glob("measured-*.json")
    for content in ("[]", "{"):
        file.write_text(content)
        with pytest.raises(UserError, match="is damaged; remove it and give the same command again"):
            run_study(TRIAL, scale="smoke", out=tmp_path / "out")
    file.unlink()
    assert run_study(TRIAL, scale="smoke", out=tmp_path / "out").finding == trial.finding


@pytest.mark.parametrize(
    ("override", "reason"),
    [("model.name=resnet14", "the arms of trial differ in it"), ("seed=7", "say how many with --seeds")],
)
def test_what_the_study_asks_cannot_be_set(override: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        prepare(TRIAL, scale="smoke", out=tmp_path, overrides=[override])


def test_what_is_asked_otherwise_overwrites_nothing(trial: StudyResult) -> None:
    out = trial.folder.parent
    usual = prepare(TRIAL, scale="smoke", out=out).folder
    others = [
        prepare(TRIAL, scale="smoke", out=out, overrides=["epochs=2"]).folder,
        prepare(TRIAL, scale="smoke", out=out, overrides=["epochs=3"]).folder,
        prepare(TRIAL, scale="smoke", out=out, processes=2).folder,
        prepare(TRIAL, scale="smoke", out=out, split_seed=1).folder,
    ]
    assert len({usual, *others}) == 5
    assert usual == trial.folder == out / "trial-digits-smoke"


def test_the_record_tells_the_arms_and_the_curves(trial: StudyResult) -> None:
    record = json.loads((trial.folder / "study.json").read_text())
    assert record["arms"]["plain"]["model"]["name"] == "plain8"
    assert record["arms"]["counting"] is None
    assert [len(panel) for panel in record["charts"][0]["panels"]] == [2, 2]
    assert record["draw"]["train_images"] == 600


def test_the_answer_of_other_images_is_not_overwritten_though_their_folder_has_its_name(
    trial: StudyResult, tmp_path: Path
) -> None:
    answer = tmp_path / trial.folder.name
    shutil.copytree(trial.folder, answer)
    record = json.loads((answer / RECORD).read_text())
    (answer / RECORD).write_text(json.dumps({**record, "fingerprint": "0" * 32}))
    with pytest.raises(UserError, match="holds the answer of other images; choose another folder with --out"):
        prepare(TRIAL, scale="smoke", out=tmp_path)


def test_the_folder_for_studies_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name the folder for studies with --out"):
        prepare(TRIAL, scale="smoke", out=tmp_path / "file")
