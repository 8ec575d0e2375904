"""Optimisers as training builds them; their formulas are held by tests/reference."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_runs import SMALL
from torch import nn

from residuum.training.optimizers import build_optimizer, parameter_groups
from residuum.training.run import OptimizerChoice
from residuum.training.train import train

Floats = NDArray[np.float64]
LR = 0.05
STEPS = 5


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(2, 3))


def gradients() -> list[Floats]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 3)) for _ in range(STEPS)]


def by_residuum(choice: OptimizerChoice) -> Floats:
    network = Weights()
    optimizer = build_optimizer(choice, network)
    for gradient in gradients():
        network.w.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    return network.w.detach().numpy()


def test_lbfgs_minimises_a_quadratic_as_torch_does() -> None:
    network, reference = Weights(), Weights()
    optimizer = build_optimizer(OptimizerChoice("lbfgs", lr=1.0), network)
    expected = torch.optim.LBFGS(reference.parameters(), lr=1.0, line_search_fn="strong_wolfe")
    target = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    for weights, stepper in ((network, optimizer), (reference, expected)):

        def closure(weights: Weights = weights, stepper: Any = stepper) -> float:
            stepper.zero_grad()
            loss = ((weights.w - target) ** 2 * (1 + target)).sum()
            loss.backward()
            return loss.item()

        for _ in range(3):
            stepper.step(closure)
    assert torch.equal(network.w, reference.w)
    torch.testing.assert_close(network.w.detach(), target, rtol=0, atol=1e-4)


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_weight_decay_is_on_everything_as_in_the_papers_unless_norm_and_bias_are_spared() -> None:
    network = small_network()
    everything = parameter_groups(OptimizerChoice("sgd", lr=0.1, weight_decay=0.5), network)
    assert [(len(group["params"]), group["weight_decay"]) for group in everything] == [(6, 0.5)]
    spared = parameter_groups(OptimizerChoice("sgd", lr=0.1, weight_decay=0.5, decay_norm_and_bias=False), network)
    assert [group["weight_decay"] for group in spared] == [0.5, 0.0]
    assert [[parameter.ndim for parameter in group["params"]] for group in spared] == [[4, 2], [1, 1, 1, 1]]


def test_frozen_parameters_are_left_out() -> None:
    network = small_network()
    network[0].requires_grad_(False)
    optimizer = build_optimizer(OptimizerChoice("adamw", lr=0.1, decay_norm_and_bias=False), network)
    got = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert got == {id(parameter) for part in network[1:] for parameter in part.parameters()}


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_the_memory_layout_of_a_network_changes_nothing(name: Any) -> None:
    """A fused step walks weights and gradients side by side in memory."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 1, 3)).double()
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    for network in (plain, turned):
        optimizer = build_optimizer(OptimizerChoice(name, lr=0.1), network)
        for _ in range(3):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
    for expected, got in zip(plain.parameters(), turned.parameters(), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adamw", "lbfgs"])
def test_two_runs_give_the_same_bytes(name: Any) -> None:
    def train() -> torch.Tensor:
        torch.manual_seed(0)
        network = small_network()
        optimizer = build_optimizer(OptimizerChoice(name, lr=0.1), network)
        images = torch.randn(4, 1, 4, 4)

        def closure() -> float:
            optimizer.zero_grad()
            loss = network(images).square().mean()
            loss.backward()
            return loss.item()

        for _ in range(4):
            optimizer.step(closure)
        return nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(train(), train())


@pytest.mark.parametrize(
    ("name", "lr", "batch_size"),
    [
        ("sgd", 0.5, 1438),  # all of the digits: gradient descent
        ("sgd", 0.1, 64),
        ("momentum", 0.1, 64),
        ("nesterov", 0.1, 64),
        ("adagrad", 0.01, 64),
        ("adadelta", 1.0, 64),
        ("rmsprop", 0.001, 64),
        ("adam", 0.001, 64),
        ("adamw", 0.001, 64),
        ("nadam", 0.002, 64),
        ("lbfgs", 1.0, 719),
    ],
)
def test_every_optimiser_trains_a_network_on_the_digits(tmp_path: Path, name: str, lr: float, batch_size: int) -> None:
    changes = [f"optimizer.name={name}", f"optimizer.lr={lr}", "optimizer.weight_decay=0", f"batch_size={batch_size}"]
    settings = [*SMALL, "epochs=2", "schedule.name=constant", *changes]
    result = train("digits", model="resnet8", out=tmp_path / "run", overrides=settings)
    first, last = (record["train_loss"] for record in result.metrics)
    assert last < 0.99 * first


def test_momentum_zero_with_nesterov_is_plain_sgd() -> None:
    np.testing.assert_array_equal(
        by_residuum(OptimizerChoice("nesterov", lr=LR, momentum=0.0)),
        by_residuum(OptimizerChoice("sgd", lr=LR)),
    )
