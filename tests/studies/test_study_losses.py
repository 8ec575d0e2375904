"""`losses`: the targets are what they say, the answer follows the numbers, and the digits give a real one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, Errors
from question_results import HIGH, LOW, differing, results_of

from residuum.data.facts import DataFacts
from residuum.data.sources import open_data
from residuum.studies.engine import prepare, run_study
from residuum.studies.losses import STUDY, ink_boxes, measure, plan, with_outliers
from residuum.studies.samples import draw
from residuum.studies.study import ScaleName, Subject

CLASSIFIERS = ["cross-entropy", "squared error", "squared error, its rate raised"]


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("facts", [DIGITS, CIFAR, PHOTOGRAPHS])
def test_classifiers_differ_in_the_loss_and_one_in_its_rate(scale: ScaleName, facts: DataFacts) -> None:
    asked = plan(scale, facts)
    assert [arm.name for arm in asked.arms if arm.run is not None] == CLASSIFIERS
    assert differing(asked) == {"loss.name", "optimizer.lr"}
    regressions = [arm.settings for arm in asked.arms if arm.run is None]
    assert len(regressions) == 9
    shared = [{key: one[key] for key in one if key not in ("loss", "outliers")} for one in regressions]
    assert all(one == shared[0] for one in shared)


def test_a_box_of_ink_has_its_centre_and_extent() -> None:
    image = np.zeros((2, 20, 20), np.uint8)
    image[0, 4:8, 10:18] = 200
    down, across, tall, wide = ink_boxes(image)[0]
    assert (down, across) == pytest.approx((6 / 20, 14 / 20))
    assert (tall, wide) == pytest.approx((4 * np.sqrt(15 / 12) / 20, 4 * np.sqrt(63 / 12) / 20))
    assert ink_boxes(image)[1].tolist() == [0.5, 0.5, 0, 0]  # none


def test_ink_may_be_dark_on_light() -> None:
    image = np.zeros((1, 12, 12), np.uint8)
    image[0, 3:5, 6:9] = 90
    assert np.allclose(ink_boxes(255 - image), ink_boxes(image))


def test_about_the_share_is_replaced_and_the_seed_decides_which() -> None:
    targets = np.full((2_000, 4), 0.5)
    wrong = with_outliers(targets, 0.3, seed=1)
    rows = (wrong != targets).any(axis=1)
    assert rows.mean() == pytest.approx(0.3, abs=0.04)
    assert wrong.min() >= 0
    assert wrong.max() <= 2
    assert np.array_equal(with_outliers(targets, 0.3, seed=1), wrong)
    assert not np.array_equal(with_outliers(targets, 0.3, seed=2), wrong)
    assert np.array_equal(with_outliers(targets, 0.0, seed=1), targets)


SETTINGS = {"model": "resnet8", "epochs": 1, "batch_size": 64, "side": 32, "lr": 0.003}


def test_what_decides_the_regressions_numbers_is_among_their_settings() -> None:
    assert all(SETTINGS.keys() <= arm.settings.keys() for arm in plan("smoke", DIGITS).arms if arm.run is None)


def test_what_is_set_reaches_the_regressions_too(tmp_path: Path) -> None:
    changed = prepare(STUDY, scale="smoke", out=tmp_path, overrides=["epochs=1", "optimizer.weight_decay=0"]).plan
    assert {arm.settings["epochs"] if arm.run is None else arm.run.epochs for arm in changed.arms} == {1}


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    few = draw(open_data("digits"), 40, 20)
    found = measure(Subject(few, 0, {**SETTINGS, "loss": "L2", "outliers": 0.0}))
    assert all(np.isfinite(value) for value in found.values())


def test_the_measure_is_a_function_of_the_seed() -> None:
    digits = draw(open_data("digits"), 200, 50)
    settings = {**SETTINGS, "loss": "L1", "outliers": 0.1}
    first, second, other = (measure(Subject(digits, seed, settings)) for seed in (0, 0, 1))
    assert first == second
    assert first != other


def errors_of(loss: Mapping[str, float]) -> dict[str, list[dict[str, float]]]:
    return {
        f"{name}, {share} % outliers": [
            {"mean absolute": value + share * seed / 100, "root mean square": 2 * value, "always the median": 5.0}
            for seed in range(3)
        ]
        for name, value in loss.items()
        for share in (0, 10, 30)
    }


@pytest.mark.parametrize(
    ("squared", "losses", "said"),
    [
        (HIGH, {"L2": 9.0, "L1": 1.0, "smooth L1": 2.0}, "is L1 1.30 ± 0.30 %, smooth L1 2.30 ± 0.30 %, L2 9.30"),
        (LOW, {"L2": 1.0, "L1": 9.0, "smooth L1": 2.0}, "is L2 1.30 ± 0.30 %, smooth L1 2.30 ± 0.30 %, L1 9.30"),
    ],
)
def test_the_verdict_is_made_from_the_numbers(squared: Errors, losses: dict[str, float], said: str) -> None:
    classes = dict.fromkeys(CLASSIFIERS, LOW) | {"squared error": squared}
    finding = STUDY.answer(results_of(STUDY, classes, measured=errors_of(losses)))
    assert said in finding.verdict
    more = "28.90 points more" if squared is HIGH else "no difference"
    assert f"squared error has a test error of {(squared is HIGH and '34.00') or '5.10'} %" in finding.verdict
    assert more in finding.verdict
    assert len(finding.table.rows) == 12


def test_on_the_digits_gross_outliers_spoil_squared_error_and_not_the_absolute_one(tmp_path: Path) -> None:
    found = run_study(STUDY, scale="smoke", out=tmp_path)
    rows = {row["arm"]: row for row in found.finding.table.records()}
    errors = {arm: row["mean absolute error [% of side]"] for arm, row in rows.items()}
    wrong = {loss: float(str(errors[f"{loss}, 30 % outliers"])) for loss in ("L1", "smooth L1", "L2")}
    assert wrong["L1"] < wrong["smooth L1"] < wrong["L2"]
    assert wrong["L2"] > 3 * wrong["L1"]
    assert all(float(str(errors[f"{loss}, 0 % outliers"])) < 1.5 for loss in wrong)
    assert all(float(str(rows[arm]["test error [%]"])) < 10 for arm in CLASSIFIERS)
