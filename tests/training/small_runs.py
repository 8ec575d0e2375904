"""Small real runs, and what they are compared by."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import residuum.training.loop as loop
from residuum.training.loop import Job
from residuum.training.train import TrainResult

SMALL = ["epochs=3", "data.size=8", "device=cpu", "precision=fp32", "batch_size=64"]
"""On the digits an epoch of these has 22 updates."""


def weights_hash(result: TrainResult | Path, folder: str = "model") -> str:
    path = result if isinstance(result, Path) else result.folder
    return hashlib.sha256((path / folder / "model.safetensors").read_bytes()).hexdigest()


def without_times(metrics: tuple[Any, ...]) -> list[dict[str, object]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in metrics]


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return manifest


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send this process a real SIGINT when `steps` updates are done."""
    true_step = loop.train_step

    def step_and_signal(job: Job, batch: loop.Batch) -> None:
        true_step(job, batch)
        if job.position.step == steps:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "train_step", step_and_signal)


def command(*arguments: str, settings: list[str] = SMALL) -> list[str]:
    """`residuum train digits` with a small network, as a process of its own."""
    changes = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "residuum", "train", "digits", "-m", "resnet8", *arguments, *changes]


def environment() -> dict[str, str]:
    """One thread, so that every process of the suite computes the same bits."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def finished(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment(), capture_output=True, text=True, timeout=200, check=False, **options
    )
