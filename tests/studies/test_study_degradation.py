"""`degradation`, on the digits for real and on made-up numbers; and `responses`, which takes its runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from depth_results import CIFAR, DIGITS, PHOTOGRAPHS, Errors, made_up

from residuum.studies import responses
from residuum.studies.degradation import STUDY, plan
from residuum.studies.engine import StudyResult, prepare, run_study
from residuum.studies.members import end_of

LOW: Errors = [(1.0, 9.0), (1.2, 9.3), (0.9, 9.1)]
LOWER: Errors = [(0.5, 8.0), (0.6, 8.3), (0.4, 8.1)]
BLUNT: Errors = [(20.0, 30.0), (90.0, 91.0)]  # much higher, but by two seeds that differ as much
NOTHING: Errors = [(0.0, 9.0), (0.0, 9.3), (0.0, 9.1)]
HARDLY: Errors = [(0.05, 9.0), (0.055, 9.3), (0.045, 9.1)]
HIGH: Errors = [(30.0, 32.0), (33.0, 34.0), (31.0, 36.0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def smoke(folder: Path) -> StudyResult:
    return run_study(STUDY, scale="smoke", seeds=1, out=folder)


def test_on_the_digits_a_deeper_plain_network_trains_worse_and_its_residual_twin_does_not(smoke: StudyResult) -> None:
    trained = {arm: smoke.results.spread(arm, "train_error").mean for arm in smoke.results.outcomes}
    losses = {arm: smoke.results.spread(arm, "train_loss").mean for arm in smoke.results.outcomes}
    assert trained["plain-56"] > trained["plain-20"] + 20
    assert losses["plain-56"] > losses["plain-20"] + 0.5
    assert trained["resnet-56"] < trained["resnet-20"] + 2
    assert smoke.finding.verdict.startswith("Degradation: the deeper plain network trains worse, its residual twin")


def test_responses_trains_nothing_that_degradation_has_trained(smoke: StudyResult, folder: Path) -> None:
    prepared = prepare(responses.STUDY, scale="smoke", seeds=1, out=folder)
    assert len(prepared.missing) == 4
    assert all(end_of(member) is not None for member in prepared.missing)
    found = run_study(responses.STUDY, scale="smoke", seeds=1, out=folder)
    layers = {arm: len(outcomes[0].measured["std"]) for arm, outcomes in found.results.outcomes.items()}
    assert layers == {"plain-20": 19, "plain-56": 55, "resnet-20": 19, "resnet-56": 55}  # all but the classifier
    assert [row[0] for row in found.finding.table.rows] == list(layers)
    assert "resnet-56" in found.finding.verdict


@pytest.mark.parametrize(
    ("plain", "residual", "said"),
    [
        ((LOW, HIGH), (LOW, LOWER), "Degradation: the deeper plain network trains worse, its residual twin does not"),
        ((LOW, HIGH), (LOW, HIGH), "The deeper network trains worse with shortcuts, too"),
        ((LOW, LOWER), (LOW, LOWER), "No degradation is seen"),
        ((LOW, LOW), (LOW, HIGH), "Against the paper"),
        ((LOW[:1], HIGH[:1]), (LOW[:1], LOW[:1]), "Degradation"),
        ((LOW[:1], [(1.5, 9.0)]), (LOW[:1], LOW[:1]), "No degradation"),  # half a point, and one seed
        ((LOW, ()), (LOW, LOWER), "plain-56 does not train at all, its loss is no number, and plain-20 does"),
        ((LOW, HIGH), ((), ()), "No answer: the residual networks did not train. plain-56 has a training error of"),
        ((LOW, HIGH), ((), ()), "; of resnet-20 and resnet-56 no seed trained, the loss is no number."),
        (((), ()), (LOW, LOWER), "No answer: the plain networks did not train"),
        (((), LOW), (LOW, LOWER), "of plain-20 no seed trained"),
        (((), ()), ((), ()), "No answer: the plain and the residual networks did not train"),
        ((LOW, BLUNT), (LOW, LOWER), "worse is not told apart from chance by 2 seeds. "),
        ((LOW, BLUNT), (LOW, HIGH), "by 2 seeds, while the deeper residual one trains worse"),
        ((LOW, HIGH), (LOW, BLUNT), "of its residual twin that is not told apart from chance by 2 seeds"),
        ((LOW, LOW), (LOW, BLUNT), "that the deeper residual one does is not told apart from chance by 2 seeds"),
        ((NOTHING, HARDLY), (LOW, LOWER), "No degradation is seen"),  # five hundredths of a point, p = 0.003
    ],
)
def test_the_verdict_is_made_from_the_numbers(
    plain: tuple[Errors, Errors], residual: tuple[Errors, Errors], said: str
) -> None:
    kinds = {"plain": plain, "resnet": residual}
    errors = {f"{kind}-{depth}": pair[n] for kind, pair in kinds.items() for n, depth in enumerate((20, 56))}
    finding = STUDY.answer(made_up(STUDY, errors))
    assert said in finding.verdict
    assert len(finding.table.rows) == 4


@pytest.mark.parametrize("unclear", [BLUNT, ()])
def test_what_is_not_known_is_never_called_no_degradation(unclear: Errors) -> None:
    errors = {"plain-20": unclear and LOW, "plain-56": unclear, "resnet-20": LOW, "resnet-56": LOW}
    assert "No degradation" not in STUDY.answer(made_up(STUDY, errors)).verdict


def test_curves_of_validation_images_are_not_called_the_tests() -> None:
    results = made_up(STUDY, {"plain-20": LOW, "plain-56": HIGH, "resnet-20": LOW, "resnet-56": LOWER})
    named = STUDY.answer(results).charts[0].panels[0][1].name
    parted = {
        arm: tuple(replace(one, evaluations={**one.evaluations, "val": one.evaluations["test"]}) for one in ones)
        for arm, ones in results.outcomes.items()
    }
    chart = STUDY.answer(replace(results, outcomes=parted)).charts[0]
    assert (named, chart.panels[0][1].name) == ("plain-20, test", "plain-20, validation")
    assert chart.alt.startswith("Training and validation error")


def test_the_charts_are_the_papers_figures() -> None:
    errors = {"plain-20": LOW, "plain-56": HIGH, "resnet-20": LOW, "resnet-56": LOWER}
    curves, depth = STUDY.answer(made_up(STUDY, errors)).charts
    assert [[one.name.partition("-")[0] for one in panel] for panel in curves.panels] == [["plain"] * 4, ["resnet"] * 4]
    assert [one.is_training for one in curves.panels[0]] == [True, False] * 2
    (plain, residual) = depth.panels[0]
    assert (plain.name, plain.x, residual.x) == ("plain", (20.0, 56.0), (20.0, 56.0))
    assert plain.y[1] > plain.y[0]
    assert plain.spread


def test_large_images_are_for_the_networks_of_imagenet_with_shortcuts_of_option_a() -> None:
    runs = {arm.name: arm.run for arm in plan("small", PHOTOGRAPHS).arms}
    assert list(runs) == ["plain-18", "plain-34", "resnet-18", "resnet-34"]
    assert [run.model.shortcut for run in runs.values() if run is not None] == [None, None, "A", "A"]


def test_at_paper_scale_it_is_the_recipe_as_it_is_beside_the_published_errors() -> None:
    arms = {arm.name: arm.run for arm in plan("paper", CIFAR).arms}
    assert list(arms)[-1] == "resnet-110"
    assert {(run.iterations, run.optimizer.lr, run.batch_size) for run in arms.values() if run} == {(64_000, 0.1, 128)}
    finding = STUDY.answer(made_up(STUDY, dict.fromkeys(arms, LOW), scale="paper", data="cifar10", facts=CIFAR))
    published = {row["arm"]: row["published test error [%]"] for row in finding.table.records()}
    assert (published["resnet-56"], published["plain-56"]) == (6.97, None)
    elsewhere = STUDY.answer(made_up(STUDY, dict.fromkeys(arms, LOW), scale="paper", facts=CIFAR))
    assert "published test error [%]" not in elsewhere.table.columns


def test_all_arms_of_smoke_have_one_setting() -> None:
    runs = [arm.run.to_dict() for arm in plan("smoke", DIGITS).arms if arm.run is not None]
    assert all({**run, "model": None} == {**runs[0], "model": None} for run in runs)
