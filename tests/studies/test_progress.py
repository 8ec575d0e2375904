"""How far a study is: by the work that is done, not by the members."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from trial import TRIAL

from residuum.studies.engine import MEMBERS, StudyResult, prepare
from residuum.studies.progress import made_of, share_done, shown


def test_nothing_all_and_a_half(trial: StudyResult, tmp_path: Path) -> None:
    prepared = prepare(TRIAL, scale="smoke", out=tmp_path)
    assert share_done(prepared, made_of(prepared)) == 0.0
    work = [prepared.work_of(member) for member, _ in prepared.members]
    for place, (_, folder) in enumerate(trial.prepared.members, start=1):
        shutil.copytree(folder, tmp_path / MEMBERS / folder.name)
        assert share_done(prepared, made_of(prepared)) == pytest.approx(sum(work[:place]) / sum(work))
    assert share_done(prepared, made_of(prepared)) == 1.0


def test_a_measure_alone_is_no_work_beside_training(trial: StudyResult, tmp_path: Path) -> None:
    """Or the time left would be that of all runs at the pace of a measurement."""
    text = io.StringIO()
    prepared = prepare(TRIAL, scale="smoke", out=tmp_path)
    measured = next(folder for member, folder in trial.prepared.members if member.run is None)
    with shown(prepared, Console(file=text)) as look:
        shutil.copytree(measured, tmp_path / MEMBERS / measured.name)
        look([folder for _, folder in prepared.members[:2]])
    assert text.getvalue() == "  0%  1 of 6 members; under way: plain (seed 0), residual (seed 0)\n"


def test_the_time_left_follows_the_pace(trial: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, hour = io.StringIO(), 3600.0
    monkeypatch.setattr("residuum.studies.progress.time.monotonic", lambda: hour)
    prepared = prepare(TRIAL, scale="smoke", out=tmp_path, seeds=1)
    with shown(prepared, Console(file=text)) as look:
        monkeypatch.setattr("residuum.studies.progress.time.monotonic", lambda: 2 * hour)
        first = next(folder for member, folder in trial.prepared.members if member.arm == "plain")
        shutil.copytree(first, tmp_path / MEMBERS / first.name)
        look([prepared.members[1][1]])
    assert text.getvalue() == " 50%  1 of 3 members; under way: residual (seed 0); 1:00:00 left\n"
