"""`residuum export`, and what other verbs do with what it writes."""

import json
import re
from pathlib import Path

import pytest
import torch
from verbs import refused, said

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import open_data
from residuum.models.catalogue import create_model
from residuum.weights import Classifier, save_model

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

COMPUTING = ["--device", "cpu", "--precision", "fp32", "-j", "0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt nothing; its answers are its own all the same."""
    torch.manual_seed(0)
    data = open_data("digits")
    facts = {"data": "digits", "fingerprint": data.fingerprint()}
    handling = Preprocessing(1, 16, crop_pct=0.8, mean=(0.3,), std=(0.3,))
    network = create_model("resnet8", num_classes=10, in_channels=1).eval()
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, Classifier(network, "resnet8", data.classes, handling, provenance=facts))
    return folder


@pytest.fixture(scope="module")
def onnx_export(model: Path) -> Path:
    from residuum.cli import main

    assert main(["export", str(model), "--to", "onnx"]) == 0
    return model.with_name("model-onnx")


@pytest.fixture(scope="module")
def torch_export(model: Path) -> Path:
    from residuum.cli import main

    assert main(["export", str(model), "--to", "torch", "-o", str(model.with_name("own"))]) == 0
    return model.with_name("own")


def test_an_export_says_what_was_checked(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "export", model, "--to", "torch", "-o", tmp_path / "out", "--data", "digits", "--json")
    found = json.loads(out)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["checks"] == config["residuum"]["export"]["checks"]
    assert [row["batch"] for row in found["checks"]["parity"]] == [1, 32]
    out, _ = said(capsys, "export", model, "--to", "torch", "-o", tmp_path / "out")
    assert "same first class [%]" in out
    assert f"residuum describe {tmp_path / 'out'}" in out


@pytest.mark.parametrize("protocol", ["1-crop", "10-crop"])
def test_evaluate_finds_of_exports_what_it_finds_of_the_model(
    protocol: str, model: Path, onnx_export: Path, torch_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [model, onnx_export / "model.onnx", torch_export]
    out, _ = said(capsys, "evaluate", *models, "digits", "--protocol", protocol, "--json", *COMPUTING)
    own, *others = json.loads(out)["models"]
    for other in others:
        assert other["top1"] == own["top1"]
        assert other["protocol"] == own["protocol"]
        assert other["loss"]["value"] == pytest.approx(own["loss"]["value"], rel=1e-5)


def test_evaluate_takes_the_engine_that_is_named(
    model: Path, onnx_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(capsys, "evaluate", onnx_export, "digits", "--engine", "onnxruntime", "--json", *COMPUTING)
    assert json.loads(out)["images"] > 0
    assert "unknown engine 'onnx'" in refused(capsys, "evaluate", onnx_export, "digits", "--engine", "onnx")
    assert "is for exports" in refused(capsys, "evaluate", model, "digits", "--engine", "onnxruntime")


def test_an_export_is_described(onnx_export: Path, torch_export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "describe", onnx_export / "model.onnx")
    for wanted in ("ONNX opset 20", "batchx1x16x16", "features batchx64", "Gemm", "fingerprint", "ONNX Runtime"):
        assert wanted in out
    for folder, kind in ((onnx_export, "Conv"), (torch_export, "aten.conv2d.default")):
        found = json.loads(said(capsys, "describe", folder, "--json")[0])
        assert found["graph"]["nodes"][kind] == 7
        assert found["graph"]["inputs"] == {"images": "batchx1x16x16"}
        assert found["graph"]["outputs"]["logits"] == "batchx10"
        assert found["provenance"]["data"] == "digits"
        assert found["checks"]["parity"]
    assert "leave out --input" in refused(capsys, "describe", onnx_export, "--input", "1x16x16")


def test_a_damaged_file_is_described_in_one_line(
    torch_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "model.pt2"):
        (tmp_path / name).write_bytes((torch_export / name).read_bytes())
    (tmp_path / "model.pt2").write_bytes(b"no model")
    assert "model.pt2 is damaged" in refused(capsys, "describe", tmp_path)
    (tmp_path / "model.pt2").unlink()
    assert "model.pt2 is missing" in refused(capsys, "describe", tmp_path)


def test_what_an_export_cannot_do_is_refused_in_one_line(
    model: Path, torch_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = refused(capsys, "evaluate", torch_export, "digits", "--protocol", "multi-scale")
    assert "images of 16 pixels only; use the protocol 1-crop or 10-crop" in says
    for command in (
        ("evaluate", torch_export, "digits", "--calibrate", "val"),
        ("export", torch_export, "--to", "onnx"),
        ("diagnose", torch_export, "digits"),
        ("train", "digits", "-m", "resnet8", "--weights", torch_export, "-o", model.with_name("run")),
    ):
        assert "is an exported model, which holds no weights" in refused(capsys, *command)


def test_what_makes_no_sense_is_refused_before_any_work(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "int8 is for onnx and openvino" in refused(capsys, "export", model, "--to", "torch", "--int8")
    for option, value in {
        "--keep-float": "fc",
        "--calibrate": "digits",
        "--max-drop": 0.5,
        "--calibration-images": 300,
    }.items():
        assert f"{option} is for --int8" in refused(capsys, "export", model, "--to", "onnx", option, value)
    for option, value in {"--data": "digits", "--root": "x", "--val-fraction": 0.2, "--split-seed": 0}.items():
        assert f"{option} is for --to onnx" in refused(capsys, "export", model, "--to", "hub", option, value)
    says = refused(capsys, "export", model, "--to", "torch", "-o", "hf:ada/digits")
    assert "names a model of the Hub, and an export is a folder" in says
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds notes.txt, which is no part" in refused(capsys, "export", model, "--to", "torch", "-o", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_model_whose_data_are_not_there_asks_for_others(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((model / "config.json").read_text())
    wanted = {"/nowhere": "cannot be opened .* --data", None: "does not say .* --data"}
    for data, says in wanted.items():
        config["residuum"]["provenance"]["data"] = data
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        (tmp_path / "model" / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
        line = refused(capsys, "export", tmp_path / "model", "--to", "torch")
        assert re.search(says, line), line


def test_the_data_are_divided_as_they_were_for_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from residuum.training.train import train

    monkeypatch.chdir(tmp_path)
    digits = open_data("digits").splits["train"]
    for index in range(100):
        (tmp_path / "photos" / str(digits.labels[index])).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(digits.read(index, 1)[:, :, 0])
        image.save(tmp_path / "photos" / str(digits.labels[index]) / f"{index}.png")
    data = open_data("photos", val_fraction=0.4, split_seed=3)
    changes = ["epochs=1", "device=cpu", "precision=fp32"]
    train(data, model="resnet8", out=tmp_path / "run", overrides=changes)
    own = json.loads(said(capsys, "export", "run", "--to", "torch", "--json")[0])
    assert own["checks"]["notes"] == []
    assert own["checks"]["parity"][0]["images"] == len(data.splits["val"])
    other = json.loads(said(capsys, "export", "run", "--to", "torch", "--split-seed", 4, "--json")[0])
    assert "is divided otherwise" in other["checks"]["notes"][0]
    _, says = said(capsys, "export", "run", "--to", "onnx", "--int8", "--split-seed", 4, code=2)
    assert "on which int8 would be judged" in says


def test_what_an_image_is_worth_stands_beside_the_accuracy() -> None:
    from residuum.inference.description import checks_tables

    row = {"engine": "x", "images": 359, "measure": "top-1 accuracy", "before": 90.0, "after": 90.0, "drop": 0.0}
    (table,) = checks_tables({"worth": [row]})
    assert table.notes == ("one image is 0.28 points",)
    (table,) = checks_tables({"worth": [{**row, "measure": "mean average precision"}]})
    assert table.notes == ()
