import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, NAdam, Optimizer

from residuum.errors import UserError
from residuum.training.checkpoints import (
    CheckpointWriter,
    DamagedCheckpointError,
    SaveError,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    restore_optimizer,
)


def save(folder: Path, step: int, state: dict[str, object]) -> Path:
    with CheckpointWriter(folder, keep=2) as writer:
        writer.write(step, state)
    return writer.path(step)


MAKERS: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda p: Adam(p, lr=0.01, fused=True),
    "nadam": lambda p: NAdam(p, lr=0.01),
    "lbfgs": lambda p: LBFGS(p, lr=0.1, max_iter=3, history_size=4),
}


def small_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    # L-BFGS flattens gradients by a view, which channels_last forbids.
    return network if name == "lbfgs" else network.to(memory_format=torch.channels_last)


def take_steps(network: nn.Module, optimizer: Optimizer, count: int, first: int) -> None:
    for step in range(first, first + count):
        torch.manual_seed(step)
        images, labels = torch.randn(6, 3, 4, 4), torch.randint(0, 2, (6,))

        def closure(images: Tensor = images, labels: Tensor = labels) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize("name", MAKERS)
def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(name: str, tmp_path: Path) -> None:
    straight = small_network(name)
    take_steps(straight, MAKERS[name](straight.parameters()), 6, first=0)

    network = small_network(name)
    optimizer = MAKERS[name](network.parameters())
    take_steps(network, optimizer, 3, first=0)
    saved = save(tmp_path, 3, {"network": network.state_dict(), "optimizer": optimizer.state_dict()})

    resumed = small_network(name)
    optimizer = MAKERS[name](resumed.parameters())
    state = load_checkpoint(saved)
    resumed.load_state_dict(state["network"])
    restore_optimizer(optimizer, state["optimizer"])
    take_steps(resumed, optimizer, 3, first=3)

    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_state_survives_with_its_types(tmp_path: Path) -> None:
    state = {
        "network": {"a.b": torch.arange(3), "scalar": torch.tensor(2.5)},
        "optimizer": {"state": {0: {"step": 3}, 11: {"step": 4}}, "groups": [{"lr": 0.1, "names": ["x"]}]},
        "empty": {},
        "nothing": None,
    }
    loaded = load_checkpoint(save(tmp_path, 7, state))
    assert torch.equal(loaded["network"]["a.b"], torch.arange(3))
    assert loaded["network"]["scalar"].shape == ()
    assert {key: loaded[key] for key in ("optimizer", "empty", "nothing")} == {
        key: state[key] for key in ("optimizer", "empty", "nothing")
    }


def test_the_newest_and_the_pinned_are_kept(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as writer:
        for step in (1, 20, 300, 4000):
            writer.write(step, {"x": torch.zeros(1)}, pinned={1})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001", "step-00000300", "step-00004000"]


def test_what_is_written_is_the_state_at_the_moment_of_asking(tmp_path: Path) -> None:
    tensor = torch.ones(2_000_000)
    with CheckpointWriter(tmp_path, keep=1) as writer:
        writer.write(1, {"x": tensor, "list": [tensor[:1]]})
        tensor.zero_()  # training goes on while the thread writes
    state = load_checkpoint(tmp_path / "step-00000001")
    assert state["x"].sum() == 2_000_000
    assert state["list"][0].item() == 1


def test_checkpoints_after_a_step_can_be_removed(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=9) as writer:
        for step in (0, 5, 10):
            writer.write(step, {})
        writer.remove_after(5)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000000", "step-00000005"}


def test_a_save_that_fails_is_told_and_leaves_the_older_checkpoint_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, {"x": torch.ones(1)})

    def refuse(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    writer = CheckpointWriter(tmp_path, keep=2)
    writer.write(2, {"x": torch.zeros(1)})
    with pytest.raises(SaveError, match=r"no space left on device.*; update 1 is the last that is saved; make room"):
        writer.wait()
    writer.wait()  # told once
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert load_checkpoint(tmp_path / "step-00000001")["x"].item() == 1


def test_sha256sum_itself_finds_a_checkpoint_sound(tmp_path: Path) -> None:
    saved = save(tmp_path, 1, {"x": torch.ones(100)})
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=saved, check=True)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "truncated": lambda saved: os.truncate(saved / "state.safetensors", 40),
    "a bit of a tensor": lambda saved: flip_a_bit(saved / "state.safetensors"),
    "a bit of a number": lambda saved: flip_a_bit(saved / "state.json"),
    "missing file": lambda saved: (saved / "state.json").unlink(),
    "missing sums": lambda saved: (saved / "SHA256SUMS").unlink(),
    "empty sums": lambda saved: (saved / "SHA256SUMS").write_text(""),
    "no sums": lambda saved: (saved / "SHA256SUMS").write_bytes(b"\xff\n"),
    "emptied": lambda saved: [file.unlink() for file in list(saved.iterdir())],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_the_newest(tmp_path: Path, damage: str) -> None:
    sound, saved = (save(tmp_path, step, {"x": torch.ones(100)}) for step in (1, 2))
    DAMAGE[damage](saved)
    with pytest.raises(DamagedCheckpointError, match="step-00000002 is damaged"):
        load_checkpoint(saved)
    newest, told = newest_checkpoint(tmp_path)
    assert newest == sound
    assert len(told) == 1
    assert "step-00000002 is damaged" in told[0]
    assert newest_checkpoint(tmp_path) == (sound, [])
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", "damaged-step-00000002"}


def test_checkpoints_that_are_all_damaged_are_refused_and_none_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == (None, [])
    os.truncate(save(tmp_path, 1, {"x": torch.ones(100)}) / "state.safetensors", 10)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged; start a new run"):
        newest_checkpoint(tmp_path)
    with pytest.raises(UserError, match="every checkpoint"):  # and asking again does not change it
        newest_checkpoint(tmp_path)
