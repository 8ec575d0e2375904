"""Updates that nobody waits for, alone and as a recorded graph, against those that are looked at one by one.

On a CPU nothing is recorded: a stand-in does the work again, from the same memory. Real graphs are in test_gpu.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL, manifest_of, stop_after, weights_hash, without_times
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import residuum.training.captured as captured
import residuum.training.loop as loop
import residuum.training.train as training
from residuum.data.sources import DataSet
from residuum.training.interruption import Interrupted
from residuum.training.train import TrainResult, train
from residuum.training.unseen import Unseen, can_be_unseen

WAYS = ["alone", "recorded"]
CONFIGURATIONS = {
    "nesterov": [],
    "clipped-ema": ["clip_norm=0.5", "ema=0.9"],
    "mixed-accumulated": ["data.augmentation.mixup=0.2", "accumulate=2"],
    "adamw": ["optimizer.name=adamw", "optimizer.lr=0.001"],
    "drop-path": ["model.drop_path=0.2"],
}


class NoReading(TorchDispatchMode):
    """Refuses whatever takes a number from a tensor, for which a GPU would be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number was asked for"
        return func(*args, **(kwargs or {}))


def unsee(monkeypatch: pytest.MonkeyPatch, way: str) -> list[Callable[[], None]]:
    """Let runs on the CPU make their updates unseen. Returns a list of what is recorded, as it is."""
    recorded: list[Callable[[], None]] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            with NoReading():
                work()

        recorded.append(work)
        return replay

    monkeypatch.setattr(training, "can_be_unseen", lambda optimizer, device: True)
    monkeypatch.setattr(captured, "record", record)
    if way == "alone":
        monkeypatch.setattr(training, "can_be_captured", lambda optimizer: False)
    return recorded


def run(digits: DataSet, folder: Path, settings: list[str]) -> TrainResult:
    return train(digits, model="resnet8", out=folder, overrides=[*SMALL, *settings])


def weights_of(result: TrainResult) -> dict[str, Tensor]:
    return load_file(result.folder / "model" / "model.safetensors")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_unseen_updates_come_to_the_same_weights_and_records(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    seen = run(digits, tmp_path / "seen", CONFIGURATIONS[name])
    recorded = unsee(monkeypatch, way)
    unseen = run(digits, tmp_path / "unseen", CONFIGURATIONS[name])
    assert len(recorded) == (way == "recorded" and name != "adamw")
    for key, value in weights_of(seen).items():
        assert torch.equal(weights_of(unseen)[key], value)
    for one, other in zip(without_times(seen.metrics), without_times(unseen.metrics), strict=True):
        assert one == pytest.approx(other)  # sums in another order


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_run_of_unseen_updates_goes_on_to_the_same_bytes(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    unsee(monkeypatch, way)
    straight = run(digits, tmp_path / "straight", [])
    with monkeypatch.context() as patch:
        stop_after(patch, 30)
        with pytest.raises(Interrupted):
            run(digits, tmp_path / "cut", [])
    resumed = train(digits, out=tmp_path / "cut", resume=True)
    assert weights_hash(resumed) == weights_hash(straight)
    assert without_times(resumed.metrics) == without_times(straight.metrics)


def spoil(monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> None:
    """Make the images of update `at` infinite, the first `times` times that it is made."""
    true_step, left = loop.train_step, [times]

    def step(job: loop.Job, batch: loop.Batch) -> None:
        if job.position.step == at and left[0]:
            left[0] -= 1
            batch.images.fill_(torch.inf)
        true_step(job, batch)

    monkeypatch.setattr(loop, "train_step", step)


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_update_is_not_made_and_is_named_when_it_is_read(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    spoil(monkeypatch, at=30, times=2)
    with pytest.raises(Exception, match="is nan at update 30, before the update"):
        run(digits, tmp_path / "seen", [])
    unsee(monkeypatch, way)
    with pytest.raises(Exception, match="is nan at update 30, before the update"):
        run(digits, tmp_path / "unseen", [])
    failure = manifest_of(tmp_path / "unseen")["failure"]
    assert failure["images"] == manifest_of(tmp_path / "seen")["failure"]["images"]
    assert len(failure["images"]) == 64


@pytest.mark.parametrize("at", [0, 30])
@pytest.mark.parametrize("way", WAYS)
def test_a_rolled_back_run_of_unseen_updates_is_that_of_seen_ones(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, at: int
) -> None:
    spoil(monkeypatch, at, times=1)
    seen = run(digits, tmp_path / "seen", ["on_nan=rollback"])
    monkeypatch.undo()
    spoil(monkeypatch, at, times=1)
    unsee(monkeypatch, way)
    unseen = run(digits, tmp_path / "unseen", ["on_nan=rollback"])
    assert manifest_of(unseen.folder)["rollbacks"] == manifest_of(seen.folder)["rollbacks"]
    assert weights_hash(unseen) == weights_hash(seen)


def test_what_is_recorded_is_the_shape_that_was_tried_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that lost an image to a damaged file is updated on as it is, wherever it comes."""
    recorded: list[Callable[[], None]] = []
    monkeypatch.setattr(captured, "record", lambda work: recorded.append(work) or (lambda: replayed.append(1)))
    made: list[int] = []
    replayed: list[int] = []
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    update = captured.CapturedUpdate(lambda images, labels: made.append(len(images)), optimizer)
    for count in (7, 8, 8, 7, 8, 8, 7, 8):
        update(torch.zeros(count, 1), torch.zeros(count))
    assert made == [7, 8, 8, 7, 8, 7]
    assert len(recorded) == 1
    assert len(replayed) == 2


def test_the_rate_is_rounded_once_wherever_it_stands() -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    plain, on_device = (torch.optim.SGD([{"params": [one]} for one in parameters], lr=0.1) for _ in range(2))
    captured.CapturedUpdate(lambda images, labels: None, on_device)
    for optimizer in (plain, on_device):
        captured.set_rate(optimizer, 1 / 3)
    assert [group["lr"] for group in plain.param_groups] == [float(group["lr"]) for group in on_device.param_groups]


def test_no_update_after_a_bad_one_changes_the_weights() -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=True)
    unseen = Unseen(optimizer, torch.device("cpu"))
    after = []
    for norm in (1.0, torch.inf, 1.0):
        network(torch.ones(4, 3)).sum().backward()
        unseen.note(torch.tensor([8.0, 1.0, 4.0]), torch.tensor(norm))
        optimizer.step()
        after.append(network.weight.detach().clone())
    outcome = unseen.read()
    assert (outcome.made, outcome.failed, outcome.loss, outcome.norm) == (1, True, 2.0, torch.inf)
    assert (outcome.loss_sum, outcome.correct, outcome.images) == (8, 1, 4)
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], after[2])
    unseen.clear()
    optimizer.step()
    assert not torch.equal(network.weight, after[0])


def test_a_gate_that_watches_the_error_sees_each_update(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = ["schedule.warmup_steps=0", "schedule.warmup_until_train_error=0.8", "schedule.warmup_lr=0.01"]
    seen = run(digits, tmp_path / "seen", gated)
    recorded = unsee(monkeypatch, "recorded")
    unseen = run(digits, tmp_path / "unseen", gated)
    assert len(recorded) == 1
    for one, other in zip(without_times(seen.metrics), without_times(unseen.metrics), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_only_fused_optimisers_on_a_gpu_go_unseen() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    sgd = torch.optim.SGD(parameters, lr=0.1, fused=True)
    assert can_be_unseen(sgd, torch.device("cuda"))
    assert not can_be_unseen(sgd, torch.device("cpu"))
    assert not can_be_unseen(torch.optim.SGD(parameters, lr=0.1), torch.device("cuda"))
    assert not can_be_unseen(torch.optim.Adagrad(parameters, lr=0.1, fused=True), torch.device("cuda"))
