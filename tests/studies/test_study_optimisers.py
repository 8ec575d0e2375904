"""`optimisers`: the plan asks for one thing, the answer follows the numbers, and the digits give a real one."""

from dataclasses import replace
from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, Errors
from question_results import FAILED, HIGH, LOW, MIDDLE, differing, results_of

from residuum.data.facts import DataFacts
from residuum.data.sources import open_data
from residuum.studies.engine import run_study
from residuum.studies.optimisers import STUDY, plan
from residuum.studies.samples import draw
from residuum.studies.study import ScaleName

NAMES = ["GD", "SGD", "momentum", "Nesterov", "L-BFGS", "Adagrad", "Adadelta", "RMSprop", "Adam", "NAdam"]
ARMS = [arm.name for arm in plan("smoke", DIGITS).arms]


def at_one_rate(which: int, errors: dict[str, Errors]) -> dict[str, Errors]:
    """Each optimiser's errors at its rate of this number; at the others it does badly."""
    found: dict[str, Errors] = dict.fromkeys(ARMS, HIGH)
    for name, own in errors.items():
        arms = [arm for arm in ARMS if arm.startswith(f"{name},")]
        found |= dict.fromkeys(arms, HIGH if own else FAILED) | {arms[which]: own}
    return found


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_every_optimiser_has_three_rates_and_nothing_else_of_its_own(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    names = [arm.name.partition(",")[0] for arm in asked.arms]
    assert list(dict.fromkeys(names)) == NAMES
    assert all(names.count(name) == 3 for name in NAMES)
    assert differing(asked) == {"optimizer.name", "optimizer.lr", "batch_size", "accumulate"}
    for arm in asked.arms:
        assert arm.run is not None
        assert (arm.run.schedule.name, arm.run.optimizer.weight_decay) == ("constant", 0)
        drawn = min(asked.train_images or facts.images, facts.images)
        is_full = arm.name.startswith(("GD", "L-BFGS"))
        assert (drawn <= arm.run.batch_size <= min(drawn + facts.classes, facts.images)) == is_full


def test_full_batches_are_normalised_in_pieces_of_the_other_batches() -> None:
    for arm in plan("paper", CIFAR).arms:
        assert arm.run is not None
        piece = arm.run.batch_size / arm.run.accumulate
        assert piece == pytest.approx(128, rel=0.01)


def test_a_full_batch_has_every_drawn_image_and_no_more_pieces_than_these_fill() -> None:
    few = replace(DIGITS, images=300)
    for facts, images in ((DIGITS, 500), (few, 300)):
        runs = {arm.name: arm.run for arm in plan("smoke", facts).arms}
        whole = runs["GD, 0.5"]
        assert whole is not None
        assert images <= whole.batch_size <= images + 10
        assert whole.accumulate == round(images / 64)
    drawn = draw(open_data("digits"), 500, None)
    run = plan("smoke", DIGITS).arms[0].run
    assert run is not None
    assert len(drawn.train) <= run.batch_size


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_optimiser_is_judged_at_its_best_rate(which: int) -> None:
    errors = dict.fromkeys(NAMES, MIDDLE) | {"Adam": LOW}
    finding = STUDY.answer(results_of(STUDY, at_one_rate(which, errors)))
    assert "each at its best rate: Adam 0.034" in finding.verdict
    assert "Adam has the lowest test error, too" in finding.verdict
    best = [row["arm"] for row in finding.table.records() if row["best rate"] == "yes"]
    assert best == [ARMS[3 * number + which] for number in range(10)]
    assert ("may lie beyond" in finding.notes[0]) == (which != 1)


def test_the_lowest_training_loss_need_not_be_the_lowest_test_error() -> None:
    errors = dict.fromkeys(NAMES, MIDDLE) | {"L-BFGS": [(0.1, 20.0), (0.2, 21.0)], "SGD": FAILED}
    said = STUDY.answer(results_of(STUDY, at_one_rate(1, errors))).verdict
    assert "each at its best rate: L-BFGS 0.005" in said
    assert "L-BFGS has 20.50 ± 0.71 %" in said
    assert "SGD failed at every rate" in said


def test_nothing_that_trains_is_said_in_words() -> None:
    finding = STUDY.answer(results_of(STUDY, {}))
    assert finding.verdict.startswith("No optimiser trained")
    assert finding.charts == ()


def test_on_the_digits_descent_on_all_images_at_once_is_last_and_second_order_first(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    rows = {str(row["arm"]).partition(",")[0]: row for row in found.finding.table.records() if row["best rate"]}
    losses = {name: row["train loss [nats]"] for name, row in rows.items()}
    assert sorted(losses, key=lambda name: losses[name])[0] == "L-BFGS"  # type: ignore[arg-type, return-value]
    assert losses["GD"] > 3 * losses["SGD"]  # type: ignore[operator]
    assert rows["GD"]["updates"] == rows["L-BFGS"]["updates"] == 4
    assert rows["SGD"]["updates"] == 28
