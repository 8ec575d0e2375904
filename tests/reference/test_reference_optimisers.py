"""Each optimiser's steps and state as PyTorch's, and those training builds held against them."""

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from numeric_gradients import Floats, assert_close
from torch import nn

from residuum.reference import optimisers
from residuum.reference.minimisers import newton
from residuum.reference.problems import logistic_regression
from residuum.training.optimizers import build_optimizer
from residuum.training.run import OptimizerChoice

STEPS = 6
RNG = np.random.default_rng(0)
START = RNG.normal(size=(2, 3))
GRADIENTS = [RNG.normal(size=(2, 3)) for _ in range(STEPS)]

TORCHS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "nadam": (torch.optim.NAdam, {}),
}


class Weights(nn.Module):
    def __init__(self, start: Floats) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.from_numpy(start.copy()))


def by_reference(name: str, **settings: Any) -> tuple[Floats, optimisers.State]:
    w, state = START, dict[str, Any]()
    for gradient in GRADIENTS:
        w, state = getattr(optimisers, name)(w, gradient, state, **settings)
    return w, state


def assert_steps_and_state_are(optimizer: torch.optim.Optimizer, weights: Weights, name: str, **settings: Any) -> None:
    for gradient in GRADIENTS:
        weights.w.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    w, state = by_reference(name, **settings)
    rtol = 1e-7 if name == "nadam" else 1e-9  # torch keeps NAdam's product of mu in float32
    np.testing.assert_allclose(weights.w.detach(), w, rtol)
    for key, value in state.items():
        np.testing.assert_allclose(optimizer.state[weights.w][key], value, rtol)


@pytest.mark.parametrize("decay", [None, 0.0, 0.05])
@pytest.mark.parametrize("name", TORCHS)
def test_steps_and_state_equal_torchs_at_its_defaults(name: str, decay: float | None) -> None:
    build, settings = TORCHS[name]
    settings = settings if decay is None else settings | {"weight_decay": decay}
    weights = Weights(START)
    ours = {key: value for key, value in settings.items() if key != "nesterov"}
    assert_steps_and_state_are(build([weights.w], **settings), weights, name, **ours)


def test_every_optimiser_is_held_against_torch() -> None:
    defined = {
        name for name, value in vars(optimisers).items() if getattr(value, "__module__", "") == optimisers.__name__
    }
    assert {name for name in defined if not name.startswith("_")} == set(TORCHS)


@pytest.mark.parametrize("name", TORCHS)
def test_no_step_changes_its_arguments(name: str) -> None:
    step, settings = getattr(optimisers, name), {"lr": 0.1}
    w, state = step(START.copy(), GRADIENTS[0], {}, **settings)
    kept = {key: np.array(value) for key, value in state.items()}
    w_kept, gradient = w.copy(), GRADIENTS[1].copy()
    step(w, gradient, state, **settings)
    assert_close(w, w_kept)
    assert_close(gradient, GRADIENTS[1])
    for key, value in kept.items():
        assert_close(state[key], value)


# What each takes of an OptimizerChoice.
EPS, BETAS, MOMENTUM = {"eps": 1e-3}, {"betas": (0.8, 0.95)}, {"momentum": 0.7}
CHOSEN: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": MOMENTUM,
    "nesterov": MOMENTUM,
    "adagrad": EPS,
    "adadelta": EPS,
    "rmsprop": EPS,
    "adam": EPS | BETAS,
    "adamw": EPS | BETAS,
    "nadam": EPS | BETAS,
}


@pytest.mark.parametrize("name", CHOSEN)
def test_every_optimizer_of_training_equals_the_reference(name: Any) -> None:
    weights = Weights(START)
    choice = OptimizerChoice(name, lr=0.05, weight_decay=0.01, **EPS, **BETAS, **MOMENTUM)
    assert_steps_and_state_are(
        build_optimizer(choice, weights), weights, name, lr=0.05, weight_decay=0.01, **CHOSEN[name]
    )


def test_lbfgs_of_training_arrives_where_newton_does() -> None:
    rng = np.random.default_rng(1)
    X, t = rng.normal(size=(30, 4)), (rng.normal(size=30) > 0).astype(float)
    weights = Weights(np.zeros(4))
    optimizer = build_optimizer(OptimizerChoice("lbfgs", lr=1.0), weights)
    rows, targets = torch.from_numpy(X), torch.from_numpy(t)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(rows @ weights.w, targets)
        loss = loss + 0.05 * weights.w.square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    expected = newton(logistic_regression(X, t, penalty=0.1), np.zeros(4))
    assert_close(weights.w.detach(), expected.x, atol=1e-5)


def test_no_optimizer_of_training_is_left_without_a_reference() -> None:
    assert set(get_args(get_type_hints(OptimizerChoice)["name"])) == {*CHOSEN, "lbfgs"}
