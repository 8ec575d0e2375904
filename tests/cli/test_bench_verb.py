"""`residuum bench`: a table, JSON and a file of the same figures, for runs and exports side by side."""

import json
from pathlib import Path

import pytest
import torch
from verbs import refused, said

from residuum.data.preprocessing import Preprocessing
from residuum.models.catalogue import create_model
from residuum.weights import Classifier

QUICK = ("--rounds", "2", "--seconds", "0", "-b", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(create_model("resnet8", num_classes=3), "resnet8", ("a", "b", "c"), Preprocessing(3, 16))


def test_a_run_and_its_export_stand_side_by_side(
    capsys: pytest.CaptureFixture[str], model: Path, exported: Path, tmp_path: Path
) -> None:
    chosen = ("--engines", "eager,onnxruntime")
    out, err = said(capsys, "bench", model, exported, *chosen, *QUICK, "-o", tmp_path / "bench.json")
    assert "images/s at 2" in out
    assert "× eager at 1" in out
    assert "note: p50 and p99 are of one image" in err
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [one["engine"] for one in found["engines"]] == ["eager", "onnxruntime"]
    assert found["engines"][0]["speedup_at_1"]["per_round"] == [1, 1]
    assert found["setting"].keys() == {"processor", "cores", "load_before"}
    assert found["engines"][0]["computed_by"].startswith(f"PyTorch {torch.__version__.partition('+')[0]} on cpu")


def test_json_says_what_the_file_says(capsys: pytest.CaptureFixture[str], exported: Path, tmp_path: Path) -> None:
    out, _ = said(
        capsys, "bench", exported, "--engines", "onnxruntime", *QUICK, "--json", "-o", tmp_path / "bench.json"
    )
    assert json.loads(out) == json.loads((tmp_path / "bench.json").read_text())
    assert json.loads(out)["base"] == [str(exported), "onnxruntime"]


def test_pytorch_is_measured_beside_exports_once(
    capsys: pytest.CaptureFixture[str], model: Path, exported: Path, tmp_path: Path
) -> None:
    engines = ("--engines", "eager,onnxruntime")
    out, _ = said(capsys, "bench", exported, exported, *engines, *QUICK, "--json")
    found = json.loads(out)["engines"]
    assert [one["engine"] for one in found] == ["eager", "onnxruntime", "onnxruntime"]
    assert found[0]["computed_by"].endswith("weights as initialised")
    assert json.loads(out)["base"] == [str(exported), "eager"]
    out, _ = said(capsys, "bench", model, exported, *engines, *QUICK, "--json")
    assert [one["model"] for one in json.loads(out)["engines"]] == [str(model), str(exported)]


def test_the_table_says_how_many_calls_a_percentile_is_of(capsys: pytest.CaptureFixture[str], exported: Path) -> None:
    out, _ = said(capsys, "bench", exported, "--engines", "onnxruntime", *QUICK)
    assert "calls" in out


def test_an_engine_that_fails_does_not_end_the_others(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    out, _ = said(capsys, "bench", model, "--engines", "eager,compiled", *QUICK)
    assert "failed: RuntimeError: no C++ compiler here" in out
    _, err = said(capsys, "bench", model, "--engines", "compiled", *QUICK, code=2)
    assert "error: no engine could compute the model" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engines", "egaer"], "did you mean eager"),
        (["--engines", "openvino"], "none of openvino computes this model here"),
        (["--batch-size", "0"], "--batch-size"),
        (["--device", "gpu"], "unknown device 'gpu'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, arguments: list[str], message: str
) -> None:
    assert message in refused(capsys, "bench", model, *arguments)


def test_what_is_no_model_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "does not exist" in refused(capsys, "bench", tmp_path / "gone")
