"""The numbers that answers are made of, against scipy and by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from residuum.evaluation.scores import Evaluation
from residuum.records import Measurement, Table
from residuum.studies.engine import StudyResult, csv_text
from residuum.studies.results import Outcome, Results, contrast, curve, error_chart, in_words, over, spread
from residuum.studies.study import Arm, Plan


def outcome(arm: str, seed: int, test_error: float, train_errors: tuple[float, ...] = (50.0, 10.0)) -> Outcome:
    table = Table("", ("class",), ())
    evaluation = Evaluation(100, "1-crop 8", Measurement(0.5), table, top1=Measurement(100 - test_error))
    lines = [
        {"epoch": n + 1, "step": n + 1, "train_error": error, "train_loss": error / 10, "val_error": error + 1}
        for n, error in enumerate(train_errors)
    ]
    return Outcome(arm, seed, Path("nowhere"), metrics=tuple(lines), evaluations={"test": evaluation})


def failed(arm: str, seed: int) -> Outcome:
    return Outcome(arm, seed, Path("nowhere"), "failed", "the loss is nan at update 3")


def results(**outcomes: list[Outcome]) -> Results:
    plan = Plan(tuple(Arm(name, measure=lambda subject: {}) for name in outcomes))
    return Results("smoke", "digits", plan, {name: tuple(found) for name, found in outcomes.items()})


def of_errors(**errors: list[float]) -> Results:
    return results(
        **{arm: [outcome(arm, seed, one) for seed, one in enumerate(found)] for arm, found in errors.items()}
    )


def test_a_spread_is_mean_and_sample_deviation_of_finite_values() -> None:
    found = spread([1.0, 2.0, math.nan, 6.0, math.inf])
    assert (found.mean, found.n) == (3.0, 3)
    assert found.std == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert str(found) == "3.00 ± 2.65"
    assert str(spread([4.0])) == "4.00"
    assert math.isnan(spread([]).mean)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=6))
def test_several_seeds_are_compared_by_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    found = contrast(of_errors(a=first, b=second), "a", "b")
    assert found.difference == pytest.approx(np.mean(second) - np.mean(first), abs=1e-9)
    if found.p is not None:
        assert found.p == pytest.approx(ttest_rel(second, first).pvalue, rel=1e-6, nan_ok=True)
        assert found.test == f"paired t-test over {len(pairs)} seeds"


def test_seeds_are_paired_by_number_and_failed_ones_left_out() -> None:
    ours = [outcome("a", 0, 10.0), failed("a", 1), outcome("a", 2, 14.0)]
    theirs = [failed("b", 0), outcome("b", 1, 99.0), outcome("b", 2, 16.0)]
    found = contrast(results(a=ours, b=theirs), "a", "b")
    assert found.means == (14.0, 16.0)
    assert found.p is None  # one pair, whose answers were not kept


def test_equal_differences_have_no_test() -> None:
    wrong = [[100 - 100 * (1 - count / 359) for count in counts] for counts in ((5, 9, 12), (6, 10, 13))]
    assert contrast(of_errors(a=wrong[0], b=wrong[1]), "a", "b").p is None  # an image more with each, but for rounding
    found = contrast(of_errors(a=[1.0, 2.0], b=[2.0, 3.0]), "a", "b")
    assert (found.difference, found.p, found.is_significant) == (1.0, None, False)
    assert in_words(found).endswith("a of 1.50 %: 1.00 points more (the same with each of 2 seeds)")


def test_one_seed_is_compared_image_by_image(trial: StudyResult) -> None:
    one = {arm: outcomes[:1] for arm, outcomes in trial.results.outcomes.items()}
    found = contrast(Results("smoke", "digits", trial.prepared.plan, one), "plain", "residual")
    answers = [one[arm][0].answers() for arm in ("plain", "residual")]
    assert answers[0] is not None
    assert answers[1] is not None
    from residuum.evaluation.significance import mcnemar

    assert found.p == mcnemar(answers[0].right, answers[1].right).p_value
    assert found.test == "McNemar's test, one seed"
    assert contrast(Results("smoke", "digits", trial.prepared.plan, one), "plain", "residual", "train_error").p is None


def test_a_contrast_is_said_with_size_direction_and_certainty() -> None:
    found = results(
        a=[outcome("a", seed, 5.0, (4.0 + 0.1 * seed,)) for seed in range(3)],
        b=[outcome("b", seed, 5.0, (12.0 - 0.2 * seed,)) for seed in range(3)],
    )
    said = in_words(contrast(found, "a", "b", "train_error"))
    assert said == (
        "b has a training error of 11.80 %, a of 4.10 %: 7.70 points more (p < 0.001, paired t-test over 3 seeds)"
    )
    assert "7.70 points less" in in_words(contrast(found, "b", "a", "train_error"))
    assert in_words(contrast(found, "a", "b", "train_loss")).startswith(
        "b has a training loss of 1.180 nats, a of 0.410"
    )
    alone = results(a=[outcome("a", 0, 5.0)], b=[failed("b", 0)])
    assert in_words(contrast(alone, "a", "b")) == "b and a cannot be compared: they have no finished seed in common"


def test_a_curve_is_the_mean_over_seeds_with_its_deviation() -> None:
    drawn = curve([outcome("a", 0, 5, (40.0, 10.0)), outcome("a", 1, 5, (50.0, 20.0))], "train_error", "a", "error [%]")
    assert (drawn.x, drawn.y) == ((1.0, 2.0), (45.0, 15.0))
    assert drawn.spread == pytest.approx((np.std([40, 50], ddof=1),) * 2)
    assert curve([outcome("a", 0, 5)], "train_error", "a", "error [%]").spread == ()


def test_charts_name_what_they_show() -> None:
    found = of_errors(a=[5.0, 6.0], b=[7.0, 8.0])
    chart = error_chart(found)
    assert [[series.name for series in panel] for panel in chart.panels] == [["a", "b"], ["a", "b"]]
    assert [panel[0].is_training for panel in chart.panels] == [True, False]
    assert "a 5.50 %, b 7.50 %" in chart.alt
    (line,) = over(found, {"a": 20, "b": 56}, {"plain": ["b", "a"]}, "test_error", "layers", "test error [%]")
    assert (line.x, line.y, line.has_markers) == ((56.0, 20.0), (7.5, 5.5), True)


def test_csv_keeps_full_numbers_and_leaves_nothing_empty() -> None:
    table = Table("", ("a, b", "c"), ((1 / 3, None), (math.nan, "x")))
    assert csv_text(table) == f'"a, b",c\n{1 / 3},\n,x\n'
