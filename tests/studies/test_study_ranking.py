"""Arms in order, and the sentence that says so."""

from question_results import FAILED, HIGH, LOW, MIDDLE, results_of

from residuum.studies.cardinality import STUDY
from residuum.studies.ranking import order_in_words, ranked

ARMS = ["1x64d", "2x40d", "4x24d", "8x14d", "32x4d"]


def test_arms_are_in_order_and_what_failed_is_left_out() -> None:
    found = results_of(STUDY, dict.fromkeys(ARMS, MIDDLE) | {"8x14d": LOW, "1x64d": HIGH, "2x40d": FAILED})
    assert ranked(found) == ["8x14d", "4x24d", "32x4d", "1x64d"]
    assert ranked(found, arms=["1x64d", "4x24d"]) == ["4x24d", "1x64d"]
    said = order_in_words(found)
    assert said.startswith("The lowest test error has 8x14d (5.10 ± 0.10 %), the highest 1x64d (34.00 ± 2.00 %; p = ")
    assert said.endswith("paired t-test over 3 seeds); 2x40d did not train.")


def test_equal_arms_share_their_place() -> None:
    two = results_of(STUDY, dict.fromkeys(ARMS, MIDDLE) | {"1x64d": LOW, "4x24d": LOW})
    assert order_in_words(two).startswith("The lowest test error have 1x64d and 4x24d (5.10 ± 0.10 %)")
    same = order_in_words(results_of(STUDY, dict.fromkeys(ARMS, LOW)))
    assert same.startswith("All that trained have one test error: 1x64d and 2x40d")


def test_one_or_none_that_trained_is_said() -> None:
    assert order_in_words(results_of(STUDY, {"4x24d": LOW})).startswith("Only 4x24d (5.10 ± 0.10 %) trained; 1x64d, ")
    assert order_in_words(results_of(STUDY, {})) == "No arm trained: the loss of every one became no number."
