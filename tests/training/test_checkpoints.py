import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, NAdam, Optimizer

from residuum.errors import UserError
from residuum.training.checkpoints import (
    list_checkpoints,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)

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
    saved = save_checkpoint(tmp_path, 3, {"network": network.state_dict(), "optimizer": optimizer.state_dict()})

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
    loaded = load_checkpoint(save_checkpoint(tmp_path, 7, state))
    assert torch.equal(loaded["network"]["a.b"], torch.arange(3))
    assert loaded["network"]["scalar"].shape == ()
    assert {key: loaded[key] for key in ("optimizer", "empty", "nothing")} == {
        key: state[key] for key in ("optimizer", "empty", "nothing")
    }


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 20, 300):
        save_checkpoint(tmp_path, step, {"x": torch.zeros(1)})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000020", "step-00000300"]


def test_a_save_that_fails_leaves_the_older_checkpoint_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, {"x": torch.ones(1)})

    def refuse(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, 2, {"x": torch.zeros(1)})
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert load_checkpoint(tmp_path / "step-00000001")["x"].item() == 1


@pytest.mark.parametrize("damage", ["truncated", "no json", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    saved = save_checkpoint(tmp_path, 1, {"x": torch.ones(100)})
    if damage == "truncated":
        data = (saved / "state.safetensors").read_bytes()
        (saved / "state.safetensors").write_bytes(data[: len(data) // 2])
    elif damage == "no json":
        (saved / "state.json").write_text(json.dumps({})[:1])
    else:
        shutil.rmtree(saved)
    with pytest.raises(UserError, match="step-00000001"):
        load_checkpoint(saved)
