"""Where the GPU benchmark runs: its device, its sizes, its images, and training as a user calls it."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gpu_data import first_images, random_images, read_arrays, write_arrays
from gpu_record import MissingError
from measuring import in_turn

from residuum.data.sources import DataSet
from residuum.training.train import TrainResult, train

AT_THE_END = "evaluate_every=1000000"
"""Evaluate after the last update alone."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything. images: of a training epoch whose steps are timed; part: of the peers' epoch."""

    nets: tuple[str, ...] = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
    deepest: str = "resnet1202"
    fast_model: str | None = None
    iterations: int = 64_000
    warm_up: int = 400
    seeds: int = 5
    rounds: int = 5
    batch: int = 128
    images: int = 25_600
    part: int = 12_800
    slow_steps: int = 60
    fast_epochs: tuple[int, ...] = (8, 12, 16, 20, 30)
    peer_epochs: int = 24
    fashion_epochs: int = 10
    fashion_batch: int = 256
    fashion_size: int = 96
    photo_size: int = 224
    photo_images: int = 4096
    photo_batches: tuple[int, ...] = (64, 128, 256, 512)
    side_by_side: tuple[int, ...] = (1, 2, 4, 8)
    side_by_side_iterations: int = 8_000
    workers: tuple[int, ...] = (4, 16)


SMOKE = Sizes(
    nets=("resnet8",),
    deepest="resnet14",
    fast_model="resnet8",
    iterations=6,
    warm_up=2,
    seeds=2,
    rounds=2,
    batch=8,
    images=16,
    part=16,
    slow_steps=2,
    fast_epochs=(1, 2),
    peer_epochs=2,
    fashion_epochs=1,
    fashion_batch=8,
    fashion_size=32,
    photo_size=32,
    photo_images=8,
    photo_batches=(4,),
    side_by_side=(1, 2),
    side_by_side_iterations=4,
    workers=(1,),
)


@dataclass(frozen=True)
class Setting:
    """What every row works with. cifar_spec, fashion_spec: data specs or .npz files, None where none was given."""

    device: torch.device
    sizes: Sizes
    is_smoke: bool
    cifar_spec: str | None
    fashion_spec: str | None
    work: Path
    seconds_left: Callable[[], float]

    def need_gpu(self) -> None:
        if self.device.type != "cuda" and not self.is_smoke:
            raise MissingError("no CUDA device; --smoke tries the code on a CPU")

    @cached_property
    def cifar(self) -> DataSet:
        """CIFAR-10; a few images of noise in a smoke test."""
        if self.is_smoke:
            return random_images(32, 16, 32) if self.cifar_spec is None else first_images(self._given_cifar, 32)
        return self._given_cifar

    @cached_property
    def _given_cifar(self) -> DataSet:
        if self.cifar_spec is None:
            raise MissingError("no CIFAR-10; name it: gpu.py DATA")
        return read_arrays(self.cifar_spec)

    @cached_property
    def cifar_like(self) -> DataSet:
        """CIFAR-10 where it was given, else as much noise: enough where only time is measured."""
        return self.cifar if self.cifar_spec is not None or self.is_smoke else random_images(50_000, 10_000, 32)

    @cached_property
    def short_epochs(self) -> DataSet:
        """`sizes.images` small images a training epoch, in which steps are timed."""
        return random_images(self.sizes.images, self.sizes.batch, 32)

    @cached_property
    def fashion(self) -> DataSet:
        """Fashion-MNIST; a few images of noise in a smoke test."""
        if self.is_smoke and self.fashion_spec is None:
            return random_images(16, 8, 28, channels=1)
        if self.fashion_spec is None:
            raise MissingError("no Fashion-MNIST; name it: --fashion-mnist DATA")
        found = read_arrays(self.fashion_spec)
        return first_images(found, 32) if self.is_smoke else found

    @cached_property
    def photos(self) -> DataSet:
        """As many images of ImageNet's usual size as fit a short epoch: noise."""
        sizes = self.sizes
        return random_images(sizes.photo_images, max(sizes.photo_batches), sizes.photo_size, classes=1000)

    def file_of(self, name: str) -> Path:
        """One of the sets above as a file, for other processes to read."""
        path = self.work / f"{name}-{os.getpid()}.npz"
        if not path.exists():
            write_arrays(getattr(self, name), path)
        return path

    def remove_files(self) -> None:
        for path in self.work.glob(f"*-{os.getpid()}.npz"):
            path.unlink()


def quiet_train(
    setting: Setting, dataset: DataSet, recipe: str, model: str | None, overrides: Sequence[str]
) -> TrainResult:
    """`train` as a user calls it, on the setting's device; the run's folder is removed after it."""
    chosen = [f"device={setting.device}", AT_THE_END, *overrides]
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stderr(nowhere),
    ):
        return train(dataset, recipe=recipe, model=model, out=Path(folder) / "run", overrides=chosen)


def timed_train(
    setting: Setting, dataset: DataSet, recipe: str, model: str | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """A whole run: seconds of the call, seconds of its training epochs alone, updates, test accuracy in %."""
    wait_for(setting.device)
    start = time.perf_counter()
    result = quiet_train(setting, dataset, recipe, model, overrides)
    wait_for(setting.device)
    return {
        "seconds": time.perf_counter() - start,
        "epochs_s": sum(record["seconds"] for record in result.metrics),
        "updates": result.metrics[-1]["step"],
        "accuracy": result.evaluations["test"].score,
        "precision": result.run.precision,
    }


def step_ms(setting: Setting, model: str, overrides: Sequence[str]) -> float:
    """Milliseconds an update of `he2015-cifar` takes, data and augmentation included, in the epochs after the first."""
    sizes = setting.sizes
    settings = ["epochs=3", f"batch_size={sizes.batch}", *overrides]
    records = quiet_train(setting, setting.short_epochs, "he2015-cifar", model, settings).metrics
    return 1000 * sum(record["seconds"] for record in records[1:]) / (records[-1]["step"] - records[0]["step"])


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def call_ms(device: torch.device, call: Callable[[], object], times: int) -> float:
    """Milliseconds a call takes, on average over so many; on a GPU by its own events."""
    wait_for(device)
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(times):
            call()
        return 1000 * (time.perf_counter() - start) / times
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(times):
        call()
    end.record()
    wait_for(device)
    return begin.elapsed_time(end) / times


def interleaved(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm gave, round by round; the arms take turns, each round begins with another."""
    figures: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm in in_turn(list(arms), number):
            figures[arm].append(arms[arm]())
    return figures


def median_ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median over rounds of one figure over another of the same round."""
    return statistics.median(one / other for one, other in zip(of, to, strict=True))
