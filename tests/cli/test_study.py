"""`residuum study` from the outside: the list, the answer, the page, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from verbs import said

from residuum.cli import main
from residuum.studies import STUDIES

ONE = ["--scale", "smoke", "--seeds", "1", "-j", "1", "--set", "epochs=1", "--set", "model.name=resnet8"]
"""The normalisation study with one epoch of a small network: five arms."""


def folder_in(studies: Path) -> Path:
    (folder,) = studies.glob("normalisation-digits-smoke-*")  # its own name, since more is set than usual
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies")
    assert main(["study", "normalisation", *ONE, "-o", str(out)]) == 0
    return out


def test_without_a_name_all_studies_are_listed_with_their_question(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "study")
    assert all(name in out and one.question in out for name, one in STUDIES.items())
    listed = json.loads(said(capsys, "study", "--json")[0])["studies"]
    assert [row["study"] for row in listed] == list(STUDIES)


def test_every_study_asks_a_question_and_names_its_source() -> None:
    for name, one in STUDIES.items():
        assert one.name == name
        assert one.question.endswith("?")
        assert re.search(r"\d{4}", one.source), one.source


def test_the_answer_is_printed_and_the_page_stands_alone(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(capsys, "study", "normalisation", *ONE, "-o", studies)
    record = json.loads((folder_in(studies) / "study.json").read_text())
    assert record["verdict"] in out
    assert "5 of them made before" in err
    page = (folder_in(studies) / "report.html").read_text()
    assert STUDIES["normalisation"].question in page
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_json_is_the_record(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "study", "normalisation", *ONE, "-o", studies, "--json")
    assert json.loads(out) == json.loads((folder_in(studies) / "study.json").read_text())


def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(capsys, "study", "degradation", "--scale", "smoke", "-o", tmp_path / "s", "--dry-run")
    assert out == ""
    assert "4 arms x 3 seeds" in err
    assert "multiply-adds" in err
    assert not (tmp_path / "s").exists()
    found = json.loads(said(capsys, "study", "units", "--scale", "smoke", "--dry-run", "--json")[0])
    assert found["members"] == found["cost"]["runs"] == 6
    assert found["cost"]["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["degradatoin"], "did you mean degradation or"),
        (["degradation", "--scale", "tiny"], "unknown scale 'tiny'"),
        (["degradation", "nowhere/"], "nowhere"),
        (["degradation", "digits", "--on", "mars"], "--on mars; allowed: ray"),
        (["degradation", "digits", "--on", "ray", "-j", "2"], "leave out --nproc and -j"),
        (["degradation", "digits", "--nproc", "2", "-j", "2"], "leave out -j 2"),
        (["degradation", "digits", "--dry-run", "--on", "mars"], "--on mars; allowed: ray"),
        (["degradation", "digits", "--device", "gpu"], "unknown device 'gpu'"),
        (["degradation", "digits", "--set", "model.name=resnet8"], "the arms of degradation differ in it"),
        (["degradation", "digits", "--set", "optimizer.lrr=1"], "unknown field 'optimizer.lrr'"),
        (["degradation", "digits", "--scale", "smoke", "--nproc", "7"], "7 processes cannot share batches of 64"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capsys, "study", *arguments, "-o", tmp_path / "s", code=2)
    assert out == ""
    assert line in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "s").exists()


def test_an_interrupted_study_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "residuum", "study", "degradation", "--scale", "smoke", "-o", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not any(tmp_path.glob("members/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; everything is saved, the same command goes on from there"
    assert "Traceback" not in err
    statuses = [json.loads(path.read_text())["status"] for path in tmp_path.glob("members/*/run.json")]
    assert "failed" not in statuses
