"""`shortcuts`: what its arms are, and what is said of them."""

from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, made_up

from residuum.models.shortcuts import SHORTCUTS
from residuum.studies.results import Contrast
from residuum.studies.shortcuts import KINDS, STUDY, _against_identity, plan, published


def test_every_kind_of_shortcut_is_an_arm_of_one_network() -> None:
    assert set(KINDS) == set(SHORTCUTS)
    for facts in (DIGITS, PHOTOGRAPHS):  # which are reduced to CIFAR's size
        runs = [arm.run for arm in plan("small", facts).arms if arm.run is not None]
        assert [(run.model.name, run.model.shortcut) for run in runs] == [("resnet20", kind) for kind in KINDS]
        assert len({run.data.size for run in runs}) == 1


def test_at_paper_scale_it_is_the_second_papers_setting_and_figures() -> None:
    run = plan("paper", CIFAR).arms[0].run
    assert run is not None
    assert (run.model.name, run.schedule.warmup_steps, run.schedule.warmup_lr) == ("resnet110", 400, 0.01)
    assert run.schedule.warmup_until_train_error == 0
    errors = {kind: [(1.0, 7.0), (1.1, 7.2)] for kind in KINDS}
    table = STUDY.answer(made_up(STUDY, errors, scale="paper", data="cifar10", facts=CIFAR)).table
    assert {row["arm"]: row["published [%]"] for row in table.records()} == {
        "A": 6.61,
        "B": None,
        "C": 12.22,
        "none": None,
        "gated": None,
        "constant": 12.35,
        "shortcut-gated": 6.91,
        "dropout": "fails",
    }
    assert "published [%]" not in STUDY.answer(made_up(STUDY, errors, facts=DIGITS)).table.columns
    assert published("A") == 6.61


def test_the_verdict_names_what_is_worse_and_better_by_more_than_chance() -> None:
    errors = {kind: [(1.0, 5.0), (1.0, 5.4), (1.0, 4.9)] for kind in KINDS}
    same = STUDY.answer(made_up(STUDY, {**errors, "B": [(1.0, 5.2), (1.0, 5.3), (1.0, 4.8)]})).verdict
    assert "None differs from the identity (A) by more than chance" in same
    worse, better = [(1.0, 15.0), (1.0, 15.2), (1.0, 14.8)], [(1.0, 2.0), (1.0, 2.3), (1.0, 1.8)]
    found = STUDY.answer(made_up(STUDY, {**errors, "dropout": worse, "B": better})).verdict
    assert "worse than the identity (A): dropout (by 9.90 points)" in found
    assert "better than the identity (A): B (by 3.07 points)" in found


def _contrast(kind: str, difference: float, p: float | None, seeds: int) -> Contrast:
    test = "paired t-test over 3 seeds" if seeds > 1 else "McNemar's test, one seed"
    return Contrast("A", kind, "test_error", (5.0, 5.0 + difference), p, test if p is not None else "", seeds)


def test_many_comparisons_are_corrected_for() -> None:
    """Of seven comparisons one at p = 0.03 is no finding: it comes up in every fifth study of equals."""
    ps = dict.fromkeys(KINDS[1:], 0.5)
    one = [_contrast(kind, 1.0, p, seeds=3) for kind, p in {**ps, "B": 0.03}.items()]
    assert _against_identity(one) == (
        "None differs from the identity (A) by more than chance "
        "(paired t-test over 3 seeds; Holm's correction for 7 comparisons)."
    )
    clear = _against_identity([_contrast(kind, 1.0, p, seeds=3) for kind, p in {**ps, "B": 0.007}.items()])
    assert clear.startswith("By more than chance, worse than the identity (A): B (by 1.00 points) (paired")


def test_one_seed_tells_of_the_test_images_alone() -> None:
    said = _against_identity([_contrast("B", -1.0, 0.001, seeds=1), _contrast("C", 1.0, 0.6, seeds=1)])
    assert said == (
        "By more than the luck of the test images, better than the identity (A): B (by 1.00 points) "
        "(McNemar's test, one seed; Holm's correction for 2 comparisons)."
    )
    assert "not tested" in _against_identity([_contrast("B", -1.0, None, seeds=1)])


def test_what_does_not_train_is_said() -> None:
    errors = {kind: [(1.0, 5.0), (1.0, 5.4)] for kind in KINDS if kind != "constant"}
    assert "constant did not train" in STUDY.answer(made_up(STUDY, errors)).verdict
    assert "identity" not in STUDY.answer(made_up(STUDY, {"B": [(1.0, 2.0)]})).verdict  # A is not there to compare with
