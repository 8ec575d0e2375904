"""The line that says what makes a run fast names what the run uses, and nothing else."""

from pathlib import Path

import pytest
from small_runs import SMALL

from residuum.data.sources import DataSet
from residuum.training.train import train

LBFGS = ["optimizer.name=lbfgs", "optimizer.weight_decay=0", "optimizer.lr=0.1"]


def line_of(digits: DataSet, folder: Path, capsys: pytest.CaptureFixture[str], settings: list[str]) -> list[str]:
    train(digits, model="resnet8", out=folder, overrides=[*SMALL, "epochs=1", *settings])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("speed: ")]
    return line.removeprefix("speed: ").split(", ")


def test_a_run_on_a_cpu_names_layout_and_optimiser(
    digits: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line_of(digits, tmp_path, capsys, [])[:2] == ["channels-last", "fused nesterov"]


def test_bf16_is_named_where_it_is_chosen(digits: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert line_of(digits, tmp_path, capsys, ["precision=bf16"])[0] == "bf16 autocast"


def test_what_lbfgs_cannot_use_is_not_named(
    digits: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = line_of(digits, tmp_path, capsys, LBFGS)
    assert not {"channels-last", "fused lbfgs"} & set(named)
