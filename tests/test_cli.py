"""The command line from the outside: what it prints where, and how it refuses."""

import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import residuum
from residuum import cli
from residuum.cli import main
from residuum.cli.curves import draw_curves
from residuum.cli.images import write_sheet
from residuum.data.sources import open_data
from residuum.data.splits import FileSplit
from residuum.training.interruption import Interrupted

VERBS = tuple(verb.__name__ for verb in cli.VERBS)


@dataclass(frozen=True)
class Said:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str


Residuum = Callable[..., Said]


@pytest.fixture
def residuum_says(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Residuum:
    monkeypatch.delenv("RESIDUUM_DEBUG", raising=False)

    def call(*arguments: str | Path) -> Said:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, trained for a moment on digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    flags = ["-m", "resnet8", "--epochs", "2", "--device", "cpu", "-j", "0"]
    assert main(["train", "digits", *flags, "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two classes with three images each."""
    for name, value in (("dark", 20), ("light", 230)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 8), value + index).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


def assert_refused(said: Said, *, naming: str) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that holds `naming`."""
    assert said.code == 2, said
    assert said.out == ""
    (line,) = said.err.splitlines()[-1:]
    assert line.startswith("error: ")
    assert naming in line
    assert "Traceback" not in said.err


# Help and usage


def test_help_of_no_verb_imports_torch_or_numpy() -> None:
    calls = "; ".join(f"main([{verb!r}, '--help'])" for verb in VERBS)
    code = (
        f"import sys; from residuum.cli import main; main(['--help']); {calls}; "
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(residuum_says: Residuum, verb: str) -> None:
    said = residuum_says(verb, "--help")
    assert said.code == 0
    assert f"Example: residuum {verb} " in said.out


def test_help_of_train_names_every_recipe(residuum_says: Residuum) -> None:
    from residuum.training.recipes import RECIPES

    words = set(re.findall(r"[\w-]+", residuum_says("train", "--help").out))
    assert set(RECIPES) <= words


def test_without_a_verb_it_shows_what_there_is(residuum_says: Residuum) -> None:
    said = residuum_says()
    assert said.code == 0
    assert all(verb in said.out for verb in VERBS)


def test_version(residuum_says: Residuum) -> None:
    assert residuum_says("--version") == Said(0, f"residuum {residuum.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (["trian", "digits"], "'train'"),
        (["train"], "DATA"),
        (["train", "digits", "--bacth-size", "3"], "did you mean --batch-size?"),
        (["train", "digits", "--epochs", "many"], "--epochs"),
        (["train", "digits", "extra"], "extra"),
        (["train", "digits", "--set"], "--set"),
        (["predict", "run", "a.png", "--format", "xml"], "jsonl"),
        (["predict", "run", "a.png", "--top", "0"], "--top"),
        (["--verbose"], "--verbose"),
    ],
)
def test_wrong_usage_is_one_line(residuum_says: Residuum, arguments: list[str], naming: str) -> None:
    said = residuum_says(*arguments)
    assert_refused(said, naming=naming)
    assert len(said.err.splitlines()) == 1


# The tour of wrong inputs


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (["train", "digits", "-m", "resnett20"], "did you mean resnet20"),
        (["train", "digits", "-m", "resnet21"], "the nearest are 20 and 26"),
        (["train", "no/such/folder"], "no/such/folder"),
        (["train", "digits", "-r", "quik"], "did you mean quick?"),
        (["train", "digits", "--set", "optimizer.lrr=0.1"], "optimizer.lr"),
        (["train", "digits", "--set", "epochs=many"], "epochs"),
        (["train", "digits", "--lr", "-1"], "optimizer.lr"),
        (["train", "digits", "--epochs", "0"], "epochs"),
        (["train", "digits", "-m", "resnet20", "--shortcut", "D"], "shortcut"),
        (["train", "digits", "--device", "gpu"], "cuda"),
        (["train", "digits", "--precision", "fp8"], "bf16"),
        (["train", "digits", "--loader", "disk"], "memory"),
        (["train", "digits", "--weights", "no/such/run"], "no/such/run"),
        (["train", "digits", "--freeze-until", "layer9"], "layer"),
        (["train", "digits", "--resume"], "--out"),
        (["train", "digits", "--resume", "-o", "no/such/run"], "no/such/run"),
        (["evaluate", "no/such/run", "digits"], "no/such/run"),
        (["predict", "no/such/run", "a.png"], "no/such/run"),
        (["check", "no/such/folder"], "no/such/folder"),
        (["models", "nothing-like-it"], "nothing-like-it"),
        (["describe", "resnet21"], "the nearest are 20 and 26"),
        (["describe", "resnet20", "--input", "32x32"], "3x224x224"),
        (["describe", "resnet20", "--input", "3x0x32"], "3x224x224"),
    ],
)
def test_wrong_input_is_one_line(
    residuum_says: Residuum,
    arguments: list[str],
    naming: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(residuum_says(*arguments), naming=naming)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("model"))


def test_empty_folder_is_refused(residuum_says: Residuum, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(residuum_says("train", tmp_path / "empty"), naming="empty")


def test_folder_whose_images_are_all_damaged_is_refused(residuum_says: Residuum, images: Path) -> None:
    for image in images.rglob("*.png"):
        image.write_bytes(image.read_bytes()[:40])
    said = residuum_says("train", images, "-o", images.parent / "run", "-j", "0")
    assert_refused(said, naming="read")


def test_damaged_image_stops_a_strict_run_and_no_other(residuum_says: Residuum, images: Path) -> None:
    (images / "dark" / "bad.png").write_bytes(b"no image")
    flags = ["-m", "resnet8", "--epochs", "1", "-j", "0", "--val-fraction", "0.5", "--device", "cpu"]
    assert_refused(residuum_says("train", images, "--strict", "-o", images.parent / "a", *flags), naming="bad.png")
    said = residuum_says("train", images, "-o", images.parent / "b", *flags)
    assert said.code == 0
    assert "bad.png" in said.err


@pytest.mark.parametrize("verb", ["train", "predict"])
def test_unwritable_output_is_refused(residuum_says: Residuum, run_folder: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "image.png").write_bytes(b"")
    inputs = ["digits"] if verb == "train" else [run_folder, tmp_path / "image.png"]
    assert_refused(residuum_says(verb, *inputs, "-o", tmp_path / "file" / "below"), naming="file")


def test_run_folder_in_use_is_refused(residuum_says: Residuum, run_folder: Path) -> None:
    assert_refused(residuum_says("train", "digits", "-o", run_folder), naming="--resume")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("verb", ["train", "evaluate", "predict"])
def test_gpu_where_there_is_none_is_refused(
    residuum_says: Residuum, run_folder: Path, images: Path, tmp_path: Path, verb: str
) -> None:
    inputs = {
        "train": ["digits", "-o", tmp_path / "run"],
        "evaluate": [run_folder, "digits"],
        "predict": [run_folder, images],
    }
    assert_refused(residuum_says(verb, *inputs[verb], "--device", "cuda"), naming="--device cpu")


def test_split_that_is_not_there_is_refused(residuum_says: Residuum, run_folder: Path) -> None:
    assert_refused(residuum_says("evaluate", run_folder, "digits", "--split", "val"), naming="train, test")


def test_data_of_other_classes_are_refused(residuum_says: Residuum, run_folder: Path, images: Path) -> None:
    assert_refused(residuum_says("evaluate", run_folder, images), naming="dark")


# Failures that are not the user's


def test_own_mistake_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residuum.models.summary.models_table", lambda pattern: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUUM_DEBUG", "1")
    with pytest.raises(residuum.UserError):
        main(["describe", "resnet21"])


@pytest.mark.parametrize(
    ("error", "naming"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "free some space"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "a/b: no such file"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "smaller batch"),
        (MemoryError(), "memory ran out; use a smaller batch (-b)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "--set accumulate=2"),
        (residuum.UserError("two\nlines"), "two lines"),
    ],
)
def test_foreign_failures_are_one_line(
    residuum_says: Residuum, monkeypatch: pytest.MonkeyPatch, error: Exception, naming: str
) -> None:
    def fail(pattern: str) -> None:
        raise error

    monkeypatch.setattr("residuum.models.summary.models_table", fail)
    assert_refused(residuum_says("models"), naming=naming)


def test_ctrl_c_ends_with_130_and_no_traceback(residuum_says: Residuum, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pattern: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("residuum.models.summary.models_table", interrupt)
    assert residuum_says("models").code == 130


def test_reader_that_stops_reading_causes_no_complaint() -> None:
    command = [sys.executable, "-m", "residuum", "--version"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


def test_interrupted_training_says_how_to_go_on(
    residuum_says: Residuum, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise Interrupted(signal.SIGTERM, tmp_path / "a run")

    monkeypatch.setattr("residuum.training.train.train", interrupt)
    said = residuum_says("train", "digits", "--split-seed", "3", "-o", tmp_path / "a run")
    assert said.code == 143
    assert said.err.endswith(f"residuum train digits --split-seed 3 --resume --out '{tmp_path / 'a run'}'\n")


def test_auto_resume_of_a_finished_run_only_draws_what_a_kill_left_undrawn(
    residuum_says: Residuum, run_folder: Path
) -> None:
    (run_folder / "curves.png").unlink()
    (run_folder / ".residuum-abcd1234-curves.png").write_bytes(b"half")
    said = residuum_says("train", "digits", "--auto-resume", "-o", run_folder)
    assert said.code == 0
    assert "is finished" in said.err
    with Image.open(run_folder / "curves.png") as picture:
        picture.load()
    assert not list(run_folder.glob(".residuum-*"))
    assert_refused(residuum_says("train", "digits", "--resume", "-o", run_folder), naming="is finished")


# What the verbs print


def test_models_and_describe_print_counts(residuum_says: Residuum) -> None:
    assert "60,850" in residuum_says("models", "lenet5").out
    described = residuum_says("describe", "resnet20")
    assert "resnet20 on 3x32x32" in described.out
    assert "269,722" in described.out


def test_models_and_describe_as_json(residuum_says: Residuum) -> None:
    listed = json.loads(residuum_says("models", "lenet5", "--json").out)
    assert listed["models"][0]["parameters"] == 60_850
    described = json.loads(residuum_says("describe", "resnet20", "--input", "1x32x32", "--json").out)
    assert described["input"] == [1, 32, 32]
    assert described["parameters"] == 269_722 - 2 * 16 * 9
    assert described["stages"][0]["layer"] == "conv1"


def test_describe_takes_a_trained_model(residuum_says: Residuum, run_folder: Path) -> None:
    said = residuum_says("describe", run_folder)
    assert "on 1x16x16" in said.out
    assert "75,002" in said.out


def test_train_says_what_to_do_next_and_draws_the_curves(residuum_says: Residuum, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    flags = ["-m", "resnet8", "--epochs", "1", "--device", "cpu", "-j", "0"]
    said = residuum_says("train", "digits", *flags, "-o", out)
    assert said.code == 0
    assert "top-1 accuracy" in said.out
    assert f"residuum evaluate '{out}' digits" in said.out
    with Image.open(out / "curves.png") as picture:
        assert picture.format == "PNG"


def test_evaluate_prints_interval_and_classes(residuum_says: Residuum, run_folder: Path) -> None:
    said = residuum_says("evaluate", run_folder, "digits", "--device", "cpu")
    assert said.code == 0
    assert re.search(r"top-1 accuracy +\d+\.\d+ % \(95 % interval \d", said.out)
    rows = [line.split() for line in said.out.splitlines() if re.match(r"\d +\d", line)]
    assert [row[0] for row in rows] == [str(digit) for digit in range(10)]


def test_evaluate_as_json_agrees_with_the_run(residuum_says: Residuum, run_folder: Path) -> None:
    said = residuum_says("evaluate", run_folder, "digits", "--json", "--device", "cpu")
    evaluated = json.loads(said.out)
    recorded = json.loads((run_folder / "run.json").read_text())["results"]["test"]
    assert evaluated["top1"] == recorded["top1"]
    assert evaluated["split"] == "test"
    assert sum(row["images"] for row in evaluated["per_class"]) == evaluated["images"]


def test_evaluate_warns_when_the_data_are_not_those_of_training(residuum_says: Residuum, images: Path) -> None:
    flags = ["--device", "cpu", "-j", "0"]
    run = images.parent / "run"
    said = residuum_says("train", images, "-m", "resnet8", "--epochs", "1", "--split-seed", "3", "-o", run, *flags)
    assert "--split-seed 3" in said.out
    same = residuum_says("evaluate", run, images, "--split-seed", "3", *flags)
    assert "changed since training" not in same.err
    other = residuum_says("evaluate", run, images, "--split-seed", "4", *flags)
    assert "changed since training" in other.err


def test_predict_prints_a_line_a_file_as_they_come(residuum_says: Residuum, run_folder: Path, images: Path) -> None:
    said = residuum_says("predict", run_folder, images, "--top", "2", "--device", "cpu")
    assert said.code == 0
    header, *lines = said.out.splitlines()
    assert header.split() == ["1st", "2nd", "file"]
    assert [line.split()[-1] for line in lines] == [str(path) for path in sorted(images.rglob("*.png"))]
    assert all(re.match(r"\d +\d+\.\d %", line) for line in lines)


def test_predict_formats_agree(residuum_says: Residuum, run_folder: Path, images: Path, tmp_path: Path) -> None:
    arguments = ["predict", run_folder, images, "--top", "2", "--device", "cpu"]
    objects = [json.loads(line) for line in residuum_says(*arguments, "--format", "jsonl").out.splitlines()]
    assert residuum_says(*arguments, "--format", "csv", "-o", tmp_path / "out.csv").out == ""
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["file"] for row in rows] == [record["file"] for record in objects]
    assert [row["label"] for row in rows] == [record["predictions"][0]["label"] for record in objects]


def test_predict_shows_progress_on_a_terminal_when_results_go_elsewhere(
    residuum_says: Residuum, run_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    said = residuum_says("predict", run_folder, images, "-o", tmp_path / "out.csv", "--device", "cpu")
    assert said.code == 0
    assert "6 files" in said.err
    assert (tmp_path / "out.csv").read_text().count("\n") == 7


def test_predict_reports_unreadable_files_and_goes_on(residuum_says: Residuum, run_folder: Path, images: Path) -> None:
    for index in range(12):
        (images / "dark" / f"bad{index:02d}.png").write_bytes(b"no image")
    said = residuum_says("predict", run_folder, images, "--device", "cpu")
    assert said.code == 1
    assert len(said.out.splitlines()) == 1 + 18
    assert said.err.count("unreadable: ") == 11
    assert said.err.splitlines()[-1] == "unreadable: 2 more"


def test_predict_fails_when_nothing_can_be_read(residuum_says: Residuum, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    said = residuum_says("predict", run_folder, tmp_path / "bad.png", "--format", "jsonl", "--device", "cpu")
    assert said.code == 2
    assert json.loads(said.out)["error"]
    assert said.err.splitlines()[-1].startswith("error: ")


def test_check_prints_and_draws(residuum_says: Residuum, images: Path, tmp_path: Path) -> None:
    (images / "dark" / "bad.png").write_bytes(b"no image")
    said = residuum_says("check", images, "--sheet", tmp_path / "new" / "sheet.png")
    assert said.code == 0
    assert "bad.png" in said.out
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.height > 2 * 64


def test_check_draws_a_sheet_whole_or_not_at_all(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residuum.report.pictures.contact_sheet", fill_half)
    with pytest.raises(ZeroDivisionError):
        main(["check", str(images), "--sheet", str(tmp_path / "new" / "sheet.png")])
    assert list((tmp_path / "new").iterdir()) == []


def test_curves_are_drawn_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residuum.report.pictures.plot_curves", fill_half)
    (tmp_path / "curves.png").write_text("those of before")
    with pytest.raises(ZeroDivisionError):
        draw_curves([{"epoch": 1, "lr": 0.1}], tmp_path / "curves.png", held_out="val", title="")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["those of before"]


def fill_half(content: object, path: Path, title: str = "") -> None:
    """A picture whose drawing fails midway."""
    path.write_text("half a picture")
    raise ZeroDivisionError


def test_sheet_does_not_hold_all_images_at_full_size(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[NDArray[np.uint8]]] = []
    alive: list[int] = []

    def read(self: FileSplit, index: int, channels: int) -> NDArray[np.uint8]:
        alive.append(sum(image() is not None for image in made))
        image = np.zeros((100, 100, channels), np.uint8)
        made.append(weakref.ref(image))
        return image

    monkeypatch.setattr(FileSplit, "read", read)
    write_sheet(open_data(str(images)), tmp_path / "sheet.png")
    assert len(made) > 2
    assert max(alive) <= 1


def test_names_that_the_terminal_cannot_show_are_escaped(images: Path) -> None:
    (images / "dark").rename(images / "d\N{LATIN SMALL LETTER A WITH DIAERESIS}rk")
    done = subprocess.run(
        [sys.executable, "-m", "residuum", "check", str(images)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "d\\xe4rk" in done.stdout


def test_check_as_json(residuum_says: Residuum, images: Path) -> None:
    report = json.loads(residuum_says("check", images, "--json").out)
    assert report["images"] == 6
    assert report["bad"] == 0


def test_check_writes_samples_that_predict_reads(residuum_says: Residuum, run_folder: Path, tmp_path: Path) -> None:
    assert residuum_says("check", "digits", "--samples", tmp_path / "samples").code == 0
    said = residuum_says("predict", run_folder, tmp_path / "samples", "--device", "cpu")
    assert said.code == 0
    assert len(said.out.splitlines()) == 11
