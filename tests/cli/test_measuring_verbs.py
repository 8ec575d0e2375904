"""`residuum evaluate`, `compare` and `report` from the outside: what they print, keep and refuse."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from verbs import refused, said

from residuum.cli import main
from residuum.cli.insights import confident_mistakes
from residuum.cli.run_records import read_run
from residuum.data.preprocessing import Preprocessing
from residuum.evaluation.answers import read_answers
from residuum.models.catalogue import create_model
from residuum.weights import Classifier, load, save_model

COMPUTING = ["--device", "cpu", "--precision", "fp32"]
TRAINING = ["-m", "resnet8", "-b", "32", "--epochs", "1", *COMPUTING, "-j", "0"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train, val and test images of three classes, told apart by their shade; one test file is damaged."""
    folder, values = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 24), ("test", 24)):
        for name, shade in (("dark", 70), ("grey", 120), ("light", 180)):
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(values.normal(shade, 60, (20, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    (folder / "test" / "grey" / "3.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two residual runs that differ in their seed, and a plain one."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"one": ["--seed", "0"], "two": ["--seed", "1"], "plain": ["--seed", "0", "--shortcut", "none"]}
    for name, flags in made.items():
        assert main(["train", str(photos), "-o", str(folder / name), *TRAINING, *flags]) == 0
    return [folder / name for name in made]


def test_what_training_has_said_is_what_evaluate_finds_and_the_answers_hold(
    photos: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("answers.csv", "answers.parquet"):
        out, _ = said(capsys, "evaluate", runs[0], photos, "--json", "--predictions", tmp_path / name, *COMPUTING)
        found, recorded = json.loads(out), json.loads((runs[0] / "run.json").read_text())["results"]["test"]
        assert found["top1"] == recorded["top1"]
        assert found["loss"]["value"] == pytest.approx(recorded["loss"]["value"], rel=1e-5)
        assert found["bad"] == recorded["bad"] == [["test/grey/3.png", recorded["bad"][0][1]]]
        kept, own = (read_answers(path, load(runs[0]).classes) for path in (tmp_path / name, _answers(runs[0])))
        assert list(kept.names) == list(own.names)
        assert np.array_equal(kept.predictions, own.predictions)
        assert 100 * kept.right.mean() == pytest.approx(found["top1"]["value"])
        assert (kept.predictions < 0).sum() == 1


def _answers(run: Path) -> Path:
    return run / "predictions" / "test.csv"


def test_several_models_are_compared_and_averaged(
    photos: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(capsys, "evaluate", *runs, photos, "--ensemble", "--json", *COMPUTING)
    found = json.loads(out)
    assert [one["model"] for one in found["models"]] == [*map(str, runs), "ensemble"]
    assert found["models"][-1]["protocol"] == "ensemble of 3, 1-crop 20"
    assert found["comparison"][-1]["top-5 error [%]"] is None  # of three classes
    for run, one in zip(runs, found["models"], strict=False):
        alone, _ = said(capsys, "evaluate", run, photos, "--json", *COMPUTING)
        assert json.loads(alone)["loss"] == one["loss"]
    assert found["comparison"][0]["p"] is None
    assert 0 <= found["comparison"][-1]["p"] <= 1
    text, _ = said(capsys, "evaluate", *runs, photos, "--ensemble", "--average", "logits", *COMPUTING)
    assert "ensemble of 3, 1-crop 20; logits averaged" in text


def test_protocols_are_followed_and_named(photos: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "1-crop 20, mirrored": ["--mirror"],
        "multi-scale 20,28": ["--protocol", "multi-scale", "--scales", "20,28"],
    }
    for name, wanted in flags.items():
        out, _ = said(capsys, "evaluate", runs[0], photos, "--json", *wanted, *COMPUTING)
        assert json.loads(out)["protocol"] == name


def test_a_network_by_name_is_measured_untrained_or_with_weights(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capsys, "evaluate", "torchvision/resnet18", photos, "--protocol", "10-crop", "--json", *COMPUTING)
    assert json.loads(out)["protocol"] == "10-crop 224 of 256"
    assert "note: torchvision/resnet18 is untrained" in err
    torch.manual_seed(3)
    torch.save(create_model("resnet8", num_classes=3).state_dict(), tmp_path / "three.pth")
    out, err = said(capsys, "evaluate", "resnet8", photos, "--weights", tmp_path / "three.pth", "--json", *COMPUTING)
    assert "untrained" not in err
    torch.save(create_model("resnet8", num_classes=7).state_dict(), tmp_path / "seven.pth")
    assert "7 classes" in refused(capsys, "evaluate", "resnet8", photos, "--weights", tmp_path / "seven.pth")


def test_a_temperature_is_fitted_kept_and_shown_beside_what_was(
    photos: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    out, _ = said(capsys, "evaluate", run, photos, "--calibrate", "val", "--json", *COMPUTING)
    before, after = json.loads(out)["models"]
    temperature = load(run).temperature
    assert temperature != 1
    assert after["model"] == f"{run}, temperature {temperature:.3f}"
    assert before["top1"] == after["top1"]
    again, _ = said(capsys, "evaluate", run, photos, "--json", *COMPUTING)
    assert json.loads(again)["loss"] == after["loss"]
    assert read_run(run).calibrated["test"].losses.mean() != read_run(run).answers["test"].losses.mean()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("one", "missing argument"),
        ("photos one", "the data last"),
        ("one photos --calibrate all --split val", "training has not seen"),
        ("resnet8 photos --calibrate val", "no saved model"),
        ("one photos --predictions .", "no suffix"),
        ("one photos --ensemble", "two or more"),
        ("one two photos --calibrate val", "one by one"),
        ("one photos --calibrate test", "the same images"),
        ("one photos --calibrate train", "training has not seen"),
        ("one two photos --predictions a.csv", "--ensemble"),
        ("one photos --predictions a.txt", ".csv or .parquet"),
        ("one photos --scales 20", "multi-scale"),
        ("one photos --protocol multi-scale --scales 20,x", "224,256,384"),
        ("one photos --protocol 10-crop", "1-crop"),
        ("one photos --protocol 12-crop", "10-crop"),
        ("nowhere photos", "does not exist"),
        ("torchvision/resnet19 photos", "resnet18"),
        ("one photos --weights w.pth", "given by name"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    photos: Path,
    runs: list[Path],
    flags: str,
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = {"one": str(runs[0]), "two": str(runs[1]), "photos": str(photos)}
    monkeypatch.chdir(photos.parent)
    assert named in refused(capsys, "evaluate", *(places.get(word, word) for word in flags.split()))
    assert not (photos.parent / "a.csv").exists()


def test_models_of_other_classes_are_refused(
    photos: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Classifier(create_model("resnet8", num_classes=2), "resnet8", ("dark", "light"), Preprocessing(3, 20))
    save_model(tmp_path / "other", other)
    assert "knows other classes" in refused(capsys, "evaluate", runs[0], tmp_path / "other", photos)


def test_runs_are_compared_by_what_they_scored(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "compare", *runs, "--json")
    found = json.loads(out)
    assert [row["model"] for row in found["scores"]] == [str(run) for run in runs]
    own = [json.loads((run / "run.json").read_text())["results"]["test"]["top1"]["value"] for run in runs]
    assert [row["top-1 error [%]"] for row in found["scores"]] == pytest.approx([100 - value for value in own])
    assert found["scores"][1]["difference [%]"] == pytest.approx(own[0] - own[1])
    assert {row["field"] for row in found["settings"]} == {"seed", "model.shortcut"}
    text, _ = said(capsys, "compare", *runs)
    assert "What differs in the settings" in text


def test_other_protocols_images_and_runs_without_results_are_not_compared(
    photos: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(runs[1], tmp_path / "other")
    manifest = json.loads((other / "run.json").read_text())
    manifest["results"]["test"]["protocol"] = "10-crop 20 of 24"
    (other / "run.json").write_text(json.dumps(manifest))
    out, _ = said(capsys, "compare", runs[0], other, "--json")
    assert f"not the same protocol: {other} by 10-crop 20 of 24, {runs[0]} by 1-crop 20" in json.loads(out)["notes"]
    fewer = shutil.copytree(runs[1], tmp_path / "fewer")
    lines = _answers(fewer).read_text().splitlines()
    _answers(fewer).write_text("\n".join([*lines[:-1], lines[-1].replace("png", "jpg")]) + "\n")
    out, _ = said(capsys, "compare", runs[0], fewer, "--json")
    assert "other images" in json.loads(out)["notes"][0]
    del manifest["results"]
    (other / "run.json").write_text(json.dumps({**manifest, "status": "interrupted"}))
    assert "it was interrupted" in refused(capsys, "compare", runs[0], other)
    (other / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    assert "it ended without a word" in refused(capsys, "compare", runs[0], other)
    (other / "run.json").write_text(json.dumps({**manifest, "data": {**manifest["data"], "images": None}}))
    assert "lacks data.images" in refused(capsys, "compare", runs[0], other)
    assert "no run.json" in refused(capsys, "compare", runs[0], photos)
    assert "it was on: val, test" in refused(capsys, "compare", runs[0], "--split", "train")


@pytest.mark.parametrize("damage", ["cut", "foreign", "gone"])
def test_answers_that_are_damaged_are_named_and_written_anew_by_evaluate(
    photos: Path, runs: list[Path], tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs[1], tmp_path / "run")
    whole = _answers(run).read_bytes()
    if damage == "gone":
        _answers(run).unlink()
    else:
        _answers(run).write_bytes(
            b"no answers\n" if damage == "foreign" else b"\n".join(whole.split(b"\n")[:-3]) + b"\n"
        )
    out, err = said(capsys, "compare", runs[0], run, "--json")
    assert json.loads(out)["scores"][1]["difference [%]"] is None
    assert f"residuum evaluate {run} DATA --split test" in err
    said(capsys, "report", run, "-o", tmp_path / "page.html")
    assert "Images" in Outline((tmp_path / "page.html").read_text()).headings
    _answers(run).unlink(missing_ok=True)
    said(capsys, "evaluate", run, photos, *COMPUTING)
    assert read_run(run).faults == ()
    assert np.array_equal(read_run(run).answers["test"].predictions, read_run(runs[1]).answers["test"].predictions)


class Outline(HTMLParser):
    """The headings, the pictures and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.pictures: list[str] = []
        self.text: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        if tag == "img":
            self.pictures.append(dict(attributes)["alt"] or "")

    def handle_data(self, data: str) -> None:
        if self._tag == "h2":
            self.headings.append(data)
            self._tag = ""
        self.text.append(data)


def test_training_leaves_a_report_with_what_went_wrong(runs: list[Path]) -> None:
    page = Outline((runs[0] / "report.html").read_text())
    assert page.headings == [
        "Results",
        "Training",
        "Which classes are taken for which",
        "Class by class",
        "Calibration",
        "The most confident mistakes",
        "Where images lie in the space of features",
        "What the first layer looks for",
        "The network",
        "Settings",
        "Data",
        "Made with",
    ]
    record = read_run(runs[0])
    answers = record.answers["test"]
    surest = np.flatnonzero(~answers.right & (answers.predictions >= 0))
    surest = surest[np.argsort(-answers.confidences[surest], kind="stable")][:12]
    pictures = [alt for alt in page.pictures if "where the answer comes from" in alt]
    assert [alt.partition(";")[0].rpartition(": ")[2] for alt in pictures] == [answers.names[index] for index in surest]
    error = 100 - record.evaluations["test"].top1.value
    assert f"{error:.2f}" in " ".join(page.text)


def test_a_report_of_several_runs_holds_their_differences(
    photos: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(capsys, "report", *runs, "-o", tmp_path / "all.html")
    assert out == f"report: {tmp_path / 'all.html'}\n"
    page = Outline((tmp_path / "all.html").read_text())
    assert "What differs in the settings" in page.headings
    assert sum("The most confident mistakes" in heading for heading in page.headings) == 3
    named = (tmp_path / "all.html").read_bytes()
    said(capsys, "report", *runs, photos, "-o", tmp_path / "all.html")
    assert (tmp_path / "all.html").read_bytes() == named


def test_images_that_are_damaged_since_training_are_left_out_of_the_report(
    photos: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = shutil.copytree(photos, tmp_path / "photos")
    answers = read_run(runs[0]).answers["test"]
    for index in confident_mistakes(answers)[:2]:
        (later / answers.names[index]).write_bytes(b"no image")
    for file in (later / "train").glob("*/*"):
        file.write_bytes(b"no image")
    said(capsys, "report", runs[0], later, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "2 of their images can no longer be read" in page
    assert "nearest to them" not in page


def test_the_report_of_a_run_that_goes_on_is_loaded_anew(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    finished = (run / "run.json").read_text()
    manifest = json.loads(finished)
    del manifest["results"]
    (run / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    pages = []

    out = tmp_path / "page.html"

    def another_epoch(seconds: float) -> None:
        pages.append(out.read_text())
        (run / "run.json").write_text(finished)

    monkeypatch.setattr("time.sleep", another_epoch)
    monkeypatch.setattr("residuum.training.run_folder.RunFolder.is_held", True)
    said(capsys, "report", run, "--watch", "-o", out)
    (during,) = pages
    assert 'http-equiv="refresh"' in during
    assert "Results" not in Outline(during).headings
    assert 'http-equiv="refresh"' not in out.read_text()


def test_a_report_on_other_data_is_refused_and_leaves_the_last_one(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (runs[0] / "report.html").read_bytes()
    for name in ("dark", "grey", "light"):
        for split in ("train", "test"):
            (tmp_path / "few" / split / name).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(tmp_path / "few" / split / name / "0.png")
    assert "other test images" in refused(capsys, "report", runs[0], tmp_path / "few")
    assert "is a folder" in refused(capsys, "report", runs[0], "-o", tmp_path)
    assert "no run.json" in refused(capsys, "report", tmp_path)
    assert (runs[0] / "report.html").read_bytes() == before


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_run_s_report_opens_without_a_complaint(runs: list[Path], tmp_path: Path) -> None:
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--enable-logging=stderr", "--v=0", "--dump-dom", (runs[0] / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert "The most confident mistakes" in done.stdout
