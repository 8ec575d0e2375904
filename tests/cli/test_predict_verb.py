"""`residuum predict` of many files: to a file, from lists, in shares, for exported models without PyTorch."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from verbs import refused, said

from residuum.cli.predict_progress import Meter
from residuum.data.preprocessing import Preprocessing
from residuum.models.catalogue import create_model
from residuum.weights import Classifier

CPU = ("--device", "cpu", "-j", "1")
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = create_model("resnet8", num_classes=3).eval()
    return Classifier(network, "resnet8", CLASSES, Preprocessing(3, 16, mean=(0.5,) * 3, std=(0.2,) * 3))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (20, 20), (25 * number, 255 - 20 * number, 3 * number)).save(folder / f"{number}.png")
    return folder


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_file_says_what_is_printed(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, tmp_path: Path
) -> None:
    for kind in ("csv", "jsonl"):
        printed, _ = said(capsys, "predict", model, photos, *CPU, "--format", kind)
        out, err = said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / f"out.{kind}")
        assert out == ""
        assert (tmp_path / f"out.{kind}").read_text() == printed
        assert err.startswith(f"9 files in {tmp_path / f'out.{kind}'}; PyTorch ")


def test_parquet_says_what_a_csv_says(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (photos / "bad.png").write_bytes(b"no image")
    for suffix in ("csv", "parquet"):
        said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / f"out.{suffix}", code=1)
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    texts = [
        {
            name: "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in found
    ]
    assert texts == rows_of((tmp_path / "out.csv").read_text())


def test_features_come_with_the_predictions(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out, _ = said(capsys, "predict", model, photos, *CPU, "--features", "--format", "jsonl")
    said(capsys, "predict", model, photos, *CPU, "--features", "-o", tmp_path / "out.parquet")
    printed = [json.loads(line)["features"] for line in out.splitlines()]
    assert parquet.read_table(tmp_path / "out.parquet")["features"].to_pylist() == printed
    assert {len(vector) for vector in printed} == {64}


def test_a_job_goes_on_where_it_was_left(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("predict", model, photos, *CPU, "-o", tmp_path / "out.jsonl")
    (photos / "3.png").write_bytes(b"no image")
    said(capsys, *command, code=1)
    Image.new("RGB", (9, 9)).save(photos / "3.png")
    _, err = said(capsys, *command, code=1)
    assert "9 files in" in err
    assert "9 of them before" in err
    assert "unreadable: " in err.splitlines()[-1]
    _, err = said(capsys, *command, "--overwrite")
    assert "before" not in err
    assert "another top: 3, not 2; name another --out" in refused(capsys, *command, "--top", "2")


def test_lists_come_from_a_file_or_from_stdin(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [photos / "4.png", photos / "2.png"]
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in names))
    out, _ = said(capsys, "predict", model, f"@{tmp_path / 'list'}", *CPU, "--format", "csv")
    assert [row["file"] for row in rows_of(out)] == list(map(str, names))
    ended = b"".join(os.fsencode(name) + b"\0" for name in names)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(ended)))
    piped, _ = said(capsys, "predict", model, "-0", "-", *CPU, "--format", "csv")
    assert piped == out


def test_an_empty_stdin_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    _, err = said(capsys, "predict", model, "-", *CPU, "-o", tmp_path / "out.csv", code=2)
    assert "error: no file was named on stdin" in err


def test_shares_are_written_apart(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "by-hand.csv", "--shard", "1/2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "out.csv")
    parts = [rows_of(path.read_text()) for path in sorted(tmp_path.glob("out-*.csv"))]
    assert parts[0] == rows_of((tmp_path / "by-hand-1-of-2.csv").read_text())
    assert sorted(row["file"] for part in parts for row in part) == sorted(map(str, photos.iterdir()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.txt"], "rows are kept as .jsonl, .csv or .parquet"),
        (["-o", "out.csv", "--format", "jsonl"], "out.csv is written as csv, not jsonl"),
        (["-o", "out.csv", "--features"], "write .parquet or .jsonl"),
        (["--features"], "add --format jsonl"),
        (["--shard", "3/2"], "1/8 to 8/8"),
        (["--shards", "2"], "--shards is for --on ray"),
        (["--on", "slurm", "-o", "out.csv"], "allowed: ray"),
        (["--on", "ray"], "--out results.jsonl"),
        (["--on", "ray", "--shard", "1/2", "-o", "out.csv"], "leave it out"),
        (["-", "--on", "ray", "-o", "out.csv"], "name @FILE, not -"),
        (["gone.jpg", "-o", "out.csv"], "gone.jpg does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    assert message in refused(capsys, "predict", model, photos, *arguments)
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_an_unreadable_file_does_not_make_torchrun_end_the_other_processes(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for photo in photos.iterdir():
        photo.write_bytes(b"no image")
    said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "by-hand.csv", "--shard", "1/2", code=1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, err = said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "out.csv", code=0)
    assert "unreadable: " in err


def test_under_torchrun_what_processes_would_do_twice_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--out results.jsonl" in refused(capsys, "predict", model, photos)
    assert "name @FILE" in refused(capsys, "predict", model, "-", "-o", "out.csv")
    assert "torchrun divides" in refused(capsys, "predict", model, photos, "-o", "out.csv", "--shard", "1/2")


def test_a_share_by_hand_shows_its_progress_and_under_torchrun_the_first_does(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("residuum.cli.predict_progress.PLAIN_LINE_SECONDS", 0.0)
    _, err = said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "by-hand.csv", "--shard", "2/2")
    assert " files/s" in err or " files\n" in err.partition(" in ")[0]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, err = said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "torchrun.csv")
    assert err.count("\n") == 1


def test_a_process_that_torchrun_started_alone_takes_a_share_by_hand(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    said(capsys, "predict", model, photos, *CPU, "-o", tmp_path / "out.csv", "--shard", "1/2")
    assert (tmp_path / "out-1-of-2.csv").exists()
    monkeypatch.setenv("RANK", "x")
    assert "RANK=x" in refused(capsys, "predict", model, photos, "-o", tmp_path / "out.csv")


def test_files_that_come_behind_the_count_have_no_time_left() -> None:
    count = SimpleNamespace(total=1000)
    meter = Meter(count)  # type: ignore[arg-type]
    meter.line(0, 0.0)
    assert meter.line(500, 10.0) == "500 of 1,000 files  50 files/s  0:00:10 left"
    assert meter.line(1000, 20.0) == "1,000 of 1,000 files  50 files/s  0:00:00 left"
    assert meter.line(1200, 24.0) == "1,200 files  50 files/s"


def test_without_a_terminal_a_line_a_minute_tells_rate_and_time_left(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("residuum.cli.predict_progress.PLAIN_LINE_SECONDS", 0.0)
    _, err = said(capsys, "predict", model, photos, *CPU, "-b", "3", "-o", tmp_path / "out.csv")
    lines = err.splitlines()[:-1]
    assert lines[0].startswith("3")
    assert "9 of 9 files" in lines[-1]
    assert "files/s  0:00:00 left" in lines[-1]


# Exported models


def test_an_exported_model_says_what_its_run_says(
    capsys: pytest.CaptureFixture[str], model: Path, exported: Path, photos: Path
) -> None:
    ours, theirs = (
        rows_of(said(capsys, "predict", which, photos, *CPU, "--precision", "fp32", "--format", "csv")[0])
        for which in (model, exported)
    )
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    assert [float(row["probability"]) for row in ours] == pytest.approx(
        [float(row["probability"]) for row in theirs], abs=1e-5
    )


def test_an_exported_model_needs_no_torch(exported: Path, photos: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom residuum.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", exported, photos, "-o", tmp_path / "out.csv", "-j", "1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 files in" in done.stderr
    assert len(rows_of((tmp_path / "out.csv").read_text())) == 9


def test_features_of_an_exported_model_are_those_of_its_run(
    capsys: pytest.CaptureFixture[str], model: Path, exported: Path, photos: Path
) -> None:
    ours, theirs = (
        [json.loads(line)["features"] for line in said(capsys, *command)[0].splitlines()]
        for command in (
            ("predict", which, photos, *CPU, "--precision", "fp32", "--features", "--format", "jsonl")
            for which in (model, exported)
        )
    )
    assert np.array(ours).shape == (9, 64)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_the_engine_is_chosen_and_told(
    capsys: pytest.CaptureFixture[str], exported: Path, photos: Path, tmp_path: Path
) -> None:
    _, err = said(capsys, "predict", exported, photos, "--engine", "onnxruntime", "-o", tmp_path / "out.csv")
    assert "; ONNX Runtime " in err
    assert "unknown engine 'tensorflow'" in refused(capsys, "predict", exported, photos, "--engine", "tensorflow")


# A cluster


def on_a_cluster(*arguments: object) -> str:
    """What `residuum predict` tells on stderr, in a process of its own: Ray ends those that outlive their cluster."""
    command = [sys.executable, "-m", "residuum", "predict", *map(str, arguments), *CPU, "--on", "ray"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def test_shares_are_predicted_on_a_cluster(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    told = on_a_cluster(model, photos, "-o", tmp_path / "out.csv", "--shards", "2")
    assert len(re.findall(r"^\d files? in .*-of-2\.csv", told, re.MULTILINE)) == 2
    parts = [rows_of(path.read_text()) for path in sorted(tmp_path.glob("out-*-of-2.csv"))]
    alone, _ = said(capsys, "predict", model, photos, *CPU, "--format", "csv")
    assert sorted(map(str, [row for part in parts for row in part])) == sorted(map(str, rows_of(alone)))
    told = on_a_cluster(model, photos, "-o", tmp_path / "out.csv")  # in as many shares as before
    assert told.count(" of them before") == sum(map(bool, parts))  # of nine names one may have all
