"""Schedules against torch.optim.lr_scheduler, the paper's warm-up, and resumed against uninterrupted."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from residuum.training.run import ScheduleChoice
from residuum.training.schedules import Schedule, build_schedule

TOTAL = 100


def trace(choice: ScheduleChoice, base_lr: float = 0.1, total: int = TOTAL) -> list[float]:
    schedule = build_schedule(choice, base_lr, total)
    return [schedule.lr(step) for step in range(total)]


def torch_trace(make: Callable[[torch.optim.Optimizer], Any], base_lr: float = 0.1, total: int = TOTAL) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base_lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant_stays() -> None:
    assert trace(ScheduleChoice("constant")) == [0.1] * TOTAL


def test_multistep_equals_torch() -> None:
    expected = torch_trace(lambda o: lr_scheduler.MultiStepLR(o, [30, 80], gamma=0.2))
    assert trace(ScheduleChoice("multistep", milestones=(30, 80), gamma=0.2)) == pytest.approx(expected)


def test_milestones_below_one_are_shares_of_the_duration() -> None:
    shares = ScheduleChoice("multistep", milestones=(0.5, 0.75))
    assert trace(shares) == trace(ScheduleChoice("multistep", milestones=(50, 75)))
    paper = build_schedule(shares, 0.1, 64_000)
    rates = [paper.lr(step) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_cosine_equals_torch() -> None:
    expected = torch_trace(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.002))
    assert trace(ScheduleChoice("cosine", min_lr=0.002)) == pytest.approx(expected)


def test_linear_equals_torch() -> None:
    expected = torch_trace(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.05, total_iters=TOTAL))
    assert trace(ScheduleChoice("linear", min_lr=0.005)) == pytest.approx(expected)


@pytest.mark.parametrize("total", [10, 100, 237])
def test_one_cycle_equals_torch(total: int) -> None:
    expected = torch_trace(lambda o: _OneCycle(o, total), total=total)
    assert trace(ScheduleChoice("one-cycle"), total=total) == pytest.approx(expected)


class _OneCycle(lr_scheduler.OneCycleLR):
    """OneCycleLR that may be stepped once more than the run is long."""

    def __init__(self, optimizer: torch.optim.Optimizer, total: int) -> None:
        super().__init__(optimizer, max_lr=0.1, total_steps=total, cycle_momentum=False)

    def step(self, epoch: Any = None) -> None:
        if self.last_epoch + 1 < self.total_steps:
            super().step()


@pytest.mark.parametrize("name", ["constant", "cosine", "one-cycle", "linear", "plateau"])
@pytest.mark.parametrize("total", [1, 2, 3, 4])
def test_a_very_short_run_has_finite_rates(name: Any, total: int) -> None:
    assert all(0 <= rate <= 0.1 for rate in trace(ScheduleChoice(name), total=total))


def test_linear_warm_up_then_cosine_equals_torch() -> None:
    expected = torch_trace(
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 0.01, 1.0, total_iters=20),
                lr_scheduler.CosineAnnealingLR(o, TOTAL - 20),
            ],
            milestones=[20],
        )
    )
    got = trace(ScheduleChoice("cosine", warmup_steps=20, warmup_lr=0.001))
    assert got == pytest.approx(expected)
    assert got == trace(ScheduleChoice("cosine", warmup_steps=0.2, warmup_lr=0.001))


def test_milestones_count_from_the_first_update_whatever_the_warm_up() -> None:
    choice = ScheduleChoice("multistep", milestones=(50,), warmup_steps=40, warmup_lr=0.01, warmup_shape="constant")
    assert trace(choice) == pytest.approx([0.01] * 40 + [0.1] * 10 + [0.01] * 50)


def test_a_warm_up_longer_than_the_run_is_finite() -> None:
    assert trace(ScheduleChoice("cosine", warmup_steps=500, warmup_lr=0.0))[-1] == pytest.approx(0.099)


def test_plateau_equals_torch() -> None:
    errors = [0.9, 0.5, 0.51, 0.5, 0.49999, 0.4, 0.4, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2, min_lr=1e-3, eps=0)
    schedule = build_schedule(ScheduleChoice("plateau", patience=2, min_lr=1e-3), 0.1, 10_000)
    expected, got = [], []
    for step, error in enumerate(errors):
        scheduler.step(error)
        schedule.observe_epoch(error)
        expected.append(optimizer.param_groups[0]["lr"])
        got.append(schedule.lr(step))
    assert got == pytest.approx(expected)
    assert len({round(rate, 9) for rate in got}) == 3


def test_epochs_change_nothing_but_plateau() -> None:
    schedule = build_schedule(ScheduleChoice("cosine", patience=0), 0.1, TOTAL)
    for _ in range(5):
        schedule.observe_epoch(1.0)
    assert schedule.lr(0) == 0.1


RESNET110 = ScheduleChoice("multistep", milestones=(0.5, 0.75), warmup_lr=0.01, warmup_until_train_error=0.8)


def resnet110_rates(errors: Callable[[int], float], total: int = 64_000) -> list[float]:
    schedule = build_schedule(RESNET110, 0.1, total)
    rates = []
    for step in range(total):
        rates.append(schedule.lr(step))
        schedule.observe_batch(errors(step))
    return rates


def test_resnet110_leaves_its_warm_up_at_once_when_the_training_error_is_below_80_percent() -> None:
    """PEERS: a public reproduction stays at 0.01 until epoch 100 on recent PyTorch."""
    rates = resnet110_rates(lambda step: 0.9 if step < 380 else 0.7)
    end = rates.index(0.1)
    assert 381 <= end <= 410
    assert rates[:end] == [0.01] * end
    assert rates[end:32_000] == [0.1] * (32_000 - end)
    assert rates[32_000:48_000] == pytest.approx([0.01] * 16_000)
    assert rates[48_000:] == pytest.approx([0.001] * 16_000)


def test_one_lucky_batch_does_not_end_the_warm_up() -> None:
    rates = resnet110_rates(lambda step: 0.0 if step in (0, 200) else 0.9, total=300)
    assert rates == [0.01] * 300


CHOICES = [
    ScheduleChoice("constant"),
    ScheduleChoice("multistep", milestones=(0.3, 0.6)),
    ScheduleChoice("plateau", patience=1),
    ScheduleChoice("cosine", warmup_steps=10, warmup_lr=0.01),
    ScheduleChoice("one-cycle"),
    ScheduleChoice("linear"),
    RESNET110,
    ScheduleChoice("plateau", patience=1, warmup_lr=0.01, warmup_until_train_error=0.8),
]


def continue_trace(schedule: Schedule, steps: range) -> list[float]:
    rates = []
    for step in steps:
        rates.append(schedule.lr(step))
        schedule.observe_batch(0.95 - step / TOTAL)
        if step % 10 == 9:
            schedule.observe_epoch(0.5 + 0.1 * math.sin(step))
    return rates


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.name}-{choice.warmup_until_train_error}")
@pytest.mark.parametrize("stop", [5, 37, 80])
def test_a_resumed_schedule_equals_an_uninterrupted_one(choice: ScheduleChoice, stop: int) -> None:
    whole = continue_trace(build_schedule(choice, 0.1, TOTAL), range(TOTAL))
    first = build_schedule(choice, 0.1, TOTAL)
    head = continue_trace(first, range(stop))
    second = build_schedule(choice, 0.1, TOTAL)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert head + continue_trace(second, range(stop, TOTAL)) == whole
