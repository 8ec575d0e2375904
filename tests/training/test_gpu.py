"""What a run promises on a GPU: in deterministic mode the same bytes, however often it is interrupted."""

import hashlib
import json
import signal
from pathlib import Path

import pytest
import torch

import residuum.training.loop as loop
from residuum.data.sources import DataSet, open_data
from residuum.training.interruption import Interrupted
from residuum.training.loop import Job
from residuum.training.train import TrainResult, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIGURATIONS = {
    "resnet20-bf16": ["model.name=resnet20"],
    "resnet18-fp32-maxpool": ["model.name=resnet18", "data.size=64", "precision=fp32", "batch_size=64"],
    "resnet50-adamw": ["model.name=resnet50_v1_5", "data.size=64", "optimizer.name=adamw", "optimizer.lr=0.001"],
    "preact-droppath-mixup-ema": [
        "model.name=preact_resnet110",
        "model.drop_path=0.1",
        "data.augmentation.mixup=0.2",
        "data.augmentation.cutmix=0.5",
        "ema=0.99",
    ],
    "resnext-file-accumulate": [
        "model.name=resnext50_32x4d",
        "data.size=64",
        "data.loader=file",
        "data.workers=2",
        "accumulate=2",
        "clip_norm=1",
    ],
    "resnet9-accumulate": ["model.name=resnet9_16", "accumulate=2", "batch_size=64"],
    "gated-recompute": ["model.name=resnet20", "model.shortcut=gated", "recompute_bn=true"],
}


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return open_data("digits")


def bytes_of(result: TrainResult) -> list[str]:
    return [
        hashlib.sha256((result.folder / folder / "model.safetensors").read_bytes()).hexdigest()
        for folder in ("model", "best")
    ]


def overrides(name: str) -> list[str]:
    return ["epochs=2", "device=cuda", "deterministic=true", "checkpoint_every=3 steps", *CONFIGURATIONS[name]]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_deterministic_runs_are_the_same_bytes_interrupted_or_not(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    straight = train(digits, out=tmp_path / "straight", overrides=overrides(name))
    true_step = loop.train_step

    def step_and_signal(job: Job, batch: loop.Batch) -> None:
        true_step(job, batch)
        if job.position.step == 9:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "train_step", step_and_signal)
    with pytest.raises(Interrupted):
        train(digits, out=tmp_path / "cut", overrides=overrides(name))
    monkeypatch.undo()
    resumed = train(digits, out=tmp_path / "cut", resume=True)
    assert bytes_of(resumed) == bytes_of(straight)
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["exact"] == {"claimed": True, "doubts": []}


def test_without_deterministic_mode_nothing_is_claimed(digits: DataSet, tmp_path: Path) -> None:
    train(digits, model="resnet8", out=tmp_path, overrides=["epochs=1", "device=cuda"])
    exact = json.loads((tmp_path / "run.json").read_text())["exact"]
    assert not exact["claimed"]
    assert "--deterministic" in exact["doubts"][0]


def test_going_on_elsewhere_drops_the_claim_and_does_not_refuse(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "is_checkpoint_due", lambda job: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        train(digits, model="resnet8", out=tmp_path, overrides=["epochs=1", "device=cpu"])
    monkeypatch.undo()
    train(digits, out=tmp_path, resume=True, overrides=["device=cuda"])
    assert "device cpu -> " in capsys.readouterr().err
    assert not json.loads((tmp_path / "run.json").read_text())["exact"]["claimed"]


def test_a_full_gpu_is_told_with_what_to_do(digits: DataSet, tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    settings = ["epochs=1", "device=cuda", "data.size=224", "batch_size=256"]
    try:
        with pytest.raises(ValueError, match=r"memory ran out with 256 images .* --set accumulate=2"):
            train(digits, model="resnet18", out=tmp_path, overrides=settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_update_as_a_graph_gives_the_same_bytes_as_one_kernel_at_a_time(
    digits: DataSet, tmp_path: Path, name: str
) -> None:
    arms = {capture: [*overrides(name), f"capture={capture}"] for capture in ("true", "false")}
    results = {capture: train(digits, out=tmp_path / capture, overrides=arm) for capture, arm in arms.items()}
    assert bytes_of(results["true"]) == bytes_of(results["false"])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_graph_is_recorded_on_the_gpu_that_was_named(digits: DataSet, tmp_path: Path) -> None:
    settings = [*overrides("resnet20-bf16"), "device=cuda:1"]
    first = train(digits, out=tmp_path / "0", overrides=overrides("resnet20-bf16"))
    assert bytes_of(train(digits, out=tmp_path / "1", overrides=settings)) == bytes_of(first)


@pytest.mark.parametrize(
    "setting",
    ["accumulate=2", "ema=0.9", "data.augmentation.mixup=0.2", "data.augmentation.random_erasing=0.5", "capture=false"],
)
def test_the_loop_waits_for_nothing_but_the_reading_of_results(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """With synchronising calls made errors from the sixth update on; what settles an account may wait."""
    true_step, true_settle = loop.train_step, loop.settle

    def step(job: Job, batch: loop.Batch) -> None:
        if job.position.step == 5:
            torch.cuda.set_sync_debug_mode("error")
        true_step(job, batch)

    def settle(job: Job) -> None:
        torch.cuda.set_sync_debug_mode("default")
        true_settle(job)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(loop, "settle", settle)
    monkeypatch.setattr(loop, "leave_if_asked", lambda job, stop: None)
    settings = ["epochs=1", "device=cuda", "data.size=16", "data.augmentation.pad_and_crop=2", setting]
    train(digits, model="resnet8", out=tmp_path, overrides=settings)


def test_a_bad_update_is_named_although_nobody_waited_for_it(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_step = loop.train_step

    def step(job: Job, batch: loop.Batch) -> None:
        if job.position.step == 7:
            batch.images.fill_(torch.inf)
        true_step(job, batch)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(ValueError, match="at update 7, before the update"):
        train(digits, model="resnet8", out=tmp_path, overrides=["epochs=1", "device=cuda"])
