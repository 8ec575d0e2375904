"""Arms in order, and the sentence that says so."""

import pytest
from question_results import FAILED, HIGH, LOW, MIDDLE, results_of

from residuum.studies.cardinality import STUDY
from residuum.studies.ranking import holm, order_in_words, ranked

ARMS = ["1x64d", "2x40d", "4x24d", "8x14d", "32x4d"]


def test_arms_are_in_order_and_what_failed_is_left_out() -> None:
    found = results_of(STUDY, dict.fromkeys(ARMS, MIDDLE) | {"8x14d": LOW, "1x64d": HIGH, "2x40d": FAILED})
    assert ranked(found) == ["8x14d", "4x24d", "32x4d", "1x64d"]
    assert ranked(found, arms=["1x64d", "4x24d"]) == ["4x24d", "1x64d"]
    said = order_in_words(found)
    assert said == (
        "The lowest test error has 8x14d (5.10 ± 0.10 %), the highest 1x64d (34.00 ± 2.00 %); 2x40d did not train."
    )  # and no p: of two arms that were chosen by looking none means anything


def test_equal_arms_share_their_place() -> None:
    two = results_of(STUDY, dict.fromkeys(ARMS, MIDDLE) | {"1x64d": LOW, "4x24d": LOW})
    assert order_in_words(two).startswith("The lowest test error have 1x64d and 4x24d (5.10 ± 0.10 %)")
    same = order_in_words(results_of(STUDY, dict.fromkeys(ARMS, LOW)))
    assert same.startswith("All that trained have one test error: 1x64d and 2x40d")


def test_one_or_none_that_trained_is_said() -> None:
    assert order_in_words(results_of(STUDY, {"4x24d": LOW})).startswith("Only 4x24d (5.10 ± 0.10 %) trained; 1x64d, ")
    assert order_in_words(results_of(STUDY, {})) == "No arm trained: the loss of every one became no number."


def test_holms_correction_is_that_of_the_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x 0.01; 2 x 0.03; never less than before
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
