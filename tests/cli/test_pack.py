"""`residuum pack`, and its pack in the place of the data."""

import hashlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residuum.cli import main

SMALL = ["-m", "resnet8", "--epochs", "2", "-b", "8", "--seed", "3", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of JPEGs of many sizes, one file of each split damaged."""
    values = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 5)):
        for shade, name in ((60, "dark"), (190, "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                size = (20 + index % 3, 24 + index % 5, 3)
                pixels = np.clip(values.normal(shade, 50, size), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
        (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:400])
    return tmp_path / "photos"


def weights_of(data: Path, out: Path, *flags: str) -> str:
    assert main(["train", str(data), "-o", str(out), *SMALL, *flags]) == 0
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("loader", ["memory", "file"])
def test_run_on_a_pack_ends_in_the_weights_of_a_run_on_the_data(photos: Path, tmp_path: Path, loader: str) -> None:
    pack = tmp_path / "pack"
    assert main(["pack", str(photos), str(pack), "-j", "2"]) == 0
    flags = ["--loader", loader, "-j", "1", "--set", "data.size=16"]
    if loader == "file":
        flags += ["--set", "data.augmentation.random_resized_crop=0.2,1"]
    runs = tmp_path / "runs"
    assert weights_of(pack, runs / "packed", *flags) == weights_of(photos, runs / "photos", *flags)
    scores = [json.loads((runs / name / "run.json").read_text())["results"] for name in ("packed", "photos")]
    assert scores[0] == scores[1]
    assert scores[0]["val"]["bad"] == [["val/light/2.jpg", "truncated"]]


def test_pack_says_what_it_did_and_other_verbs_take_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack"
    assert main(["pack", str(photos), str(pack), "--shorter-side", "12", "-j", "0"]) == 0
    said = capsys.readouterr()
    assert f"{photos}: 40 train, 10 val images of 2 classes" in said.out
    assert re.search(r"pack +\S+, 0\.0 MiB, in \d+\.\d s\n", said.out)
    assert f"residuum train {pack}\n" in said.out
    assert "note: Larger images were reduced to a shorter side of 12 pixels when they were packed." in said.err
    assert "left out: train/light/2.jpg: truncated\nleft out: val/light/2.jpg: truncated\n" in said.err
    assert main(["check", str(pack), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bad"] == 2


def test_pack_prints_one_json_object(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(photos), str(tmp_path / "pack"), "--json", "-j", "0"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == {"train": 40, "val": 10}
    assert record["left_out"] == 2
    assert record["bad"][0] == ["train/light/2.jpg", "truncated"]
    assert record["bytes"] == sum(file.stat().st_size for file in (tmp_path / "pack").iterdir())


STOPPED = """
import signal, sys
from residuum.cli import main
from residuum.data import pack_writer

def reduced(*_):
    signal.raise_signal(int(sys.argv[1]))

pack_writer.reduced = reduced
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pack_stopped_by_a_signal_leaves_nothing(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "packs").mkdir()
    arguments = [str(int(number)), "pack", str(photos), str(tmp_path / "packs" / "one"), "-j", "0"]
    stopped = subprocess.run([sys.executable, "-c", STOPPED, *arguments], capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (128 + number, "", "")
    assert list((tmp_path / "packs").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (["nowhere", "OUT"], "unknown data 'nowhere'"),
        (["digits", "TAKEN"], "is no pack, or holds more than one"),
        (["digits", "OUT", "--shorter-side", "0"], "shorter-side"),
        (["digits"], "missing argument 'OUT'"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], naming: str
) -> None:
    (tmp_path / "TAKEN").mkdir()
    (tmp_path / "TAKEN" / "thesis.tex").write_text("years of work")
    places = [str(tmp_path / word) if word.isupper() else word for word in arguments]
    assert main(["pack", *places]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert naming in said.err
    assert not (tmp_path / "OUT").exists()


def test_damaged_pack_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "digits", str(tmp_path / "pack"), "-j", "0"]) == 0
    with (tmp_path / "pack" / "test.safetensors").open("r+b") as stream:
        stream.truncate(5000)
    capsys.readouterr()
    for verb in ("train", "check"):
        assert main([verb, str(tmp_path / "pack")]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert "is damaged (5,000 bytes instead of" in said.err


def test_progress_is_shown_on_a_terminal_only(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for shown in (False, True):
        if shown:
            monkeypatch.setenv("FORCE_COLOR", "1")
        assert main(["pack", str(photos), str(tmp_path / "pack"), "-j", "0"]) == 0
        said = capsys.readouterr()
        assert "reading" not in said.out
        for what in ("the headers of train images", "train images", "val images"):
            assert (f"reading {what}" in said.err) == shown
