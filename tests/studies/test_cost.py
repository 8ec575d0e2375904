"""What a study costs: counted by hand, and timed in proportion."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from depth_results import DIGITS
from trial import TRIAL

from residuum.models.catalogue import create_model
from residuum.models.summary import summarise
from residuum.studies import cost as costs
from residuum.studies.cost import Cost, cost, in_units, timed
from residuum.studies.engine import StudyResult, prepare


def test_a_cost_is_what_the_runs_come_to(tmp_path: Path) -> None:
    found = cost(prepare(TRIAL, scale="smoke", out=tmp_path))
    networks = [create_model(name, num_classes=10, in_channels=1) for name in ("plain8", "resnet8")]
    work = sum(summarise(network, (1, 8, 8)).multiply_adds for network in networks)
    # two arms, two seeds, one epoch of 600 images in whole batches of 64
    assert (found.runs, found.updates, found.images) == (4, 4 * 9, 4 * 9 * 64)
    assert found.multiply_adds == 2 * 9 * 64 * 3 * work
    assert found.lines()[0] == "4 runs, 36 updates, 2,304 images seen"


def test_what_is_trained_costs_nothing_again(trial: StudyResult) -> None:
    found = cost(trial.prepared)
    assert (found.runs, found.multiply_adds) == (0, 0)
    assert timed(found).seconds == 0
    assert found.lines() == ("nothing is left to train; measuring untrained networks is not counted",)


def test_time_is_in_proportion_to_the_multiply_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(prepare(TRIAL, scale="smoke", out=tmp_path))
    monkeypatch.setattr(costs, "_time_of_an_update", lambda run, classes: (64, 0.5))
    assert timed(found).seconds == pytest.approx(36 * 0.5)
    assert timed(replace(found, multiply_adds=2 * found.multiply_adds)).seconds == pytest.approx(36.0)
    (line,) = timed(found).lines()[2:]
    assert line.startswith("about 18 seconds here")
    assert "half as long or twice" in line


def test_measuring_the_time_leaves_the_random_state_alone(tmp_path: Path) -> None:
    found = cost(prepare(TRIAL, scale="smoke", out=tmp_path))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    seconds = timed(found).seconds
    assert torch.equal(torch.get_rng_state(), before)
    assert seconds is not None
    assert seconds > 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(12.3, "12 seconds"), (89.0, "89 seconds"), (720.0, "12 minutes"), (11_520.0, "3.2 hours"), (5e5, "5.8 days")],
)
def test_times_are_said_in_two_digits(seconds: float, said: str) -> None:
    assert in_units(seconds) == said


def test_a_cost_without_a_time_says_none() -> None:
    assert len(Cost(1, 1, 1, 1, 10, cheapest=TRIAL.plan("smoke", DIGITS).arms[0].run).lines()) == 2
