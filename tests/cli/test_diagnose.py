"""`residuum diagnose` from the outside: what it prints, writes and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from verbs import refused, said

from residuum.data.preprocessing import Preprocessing
from residuum.models.catalogue import create_model
from residuum.weights import Classifier, save_model

CPU = ["--device", "cpu"]
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network for grey images of 16 pixels."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    network = create_model("resnet8", num_classes=10, in_channels=1)
    handling = Preprocessing(1, 16, mean=(0.3,), std=(0.4,))
    save_model(folder, Classifier(network, "resnet8", DIGITS, handling))
    return folder


def test_a_saved_model_is_diagnosed_in_words_and_by_layer(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "diagnose", model, "digits", *CPU)
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["verdict", "reason", "remedy"]
    assert lines[0].split()[1] == "healthy"
    assert any(line.startswith("conv1 ") for line in lines)
    assert any(line.startswith("fc ") for line in lines)


def test_a_network_by_name_is_newly_built_for_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "diagnose", "plain56", "digits", "--images", 16, *CPU)
    assert out.startswith("verdict  exploding")
    assert "Add shortcuts" in out


def test_json_has_all_that_was_found(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "diagnose", model, "digits", "--json", "--images", 32, "--lr", 0.1, *CPU)
    found = json.loads(out)
    assert (found["verdict"], found["lr"], found["probe"]["images"]) == ("healthy", 0.1, 32)
    assert found["probe"]["layers"][0]["name"] == "conv1"
    assert found["probe"]["layers"][0]["dead"] is None
    assert len(found["probe"]["joins"]) == 3


def test_the_same_images_are_looked_at_each_time(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("diagnose", model, "digits", "--json", *CPU)
    assert said(capsys, *command) == said(capsys, *command)


def test_a_page_is_written_where_it_is_asked_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "page.html"
    _, err = said(capsys, "diagnose", model, "digits", "-o", page, *CPU)
    assert f"page: {page}" in err
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "Residual sums" in text


def test_a_damaged_image_is_named_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "train" / "a" / "0.png").write_bytes(b"no image")
    out, err = said(capsys, "diagnose", "resnet8", tmp_path / "train", "--json", *CPU)
    assert "0.png" in err
    assert 2 <= json.loads(out)["probe"]["images"] <= 7


def test_wrong_input_is_refused_in_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "6n+2" in refused(capsys, "diagnose", "resnet21", "digits")
    assert "does not exist" in refused(capsys, "diagnose", "no/such/model", "digits")
    assert "digits" in refused(capsys, "diagnose", model, "digit")
    assert "is a folder" in refused(capsys, "diagnose", model, "digits", "-o", tmp_path)
    assert "cuda" in refused(capsys, "diagnose", model, "digits", "--device", "gpu")
    assert "--images" in refused(capsys, "diagnose", model, "digits", "--images", 1)
