"""The page of runs, from records to sections: what stands there, and what it is called."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residuum.cli.run_names import in_a_row, names_apart
from residuum.cli.run_page import run_page
from residuum.cli.run_records import RunRecord
from residuum.evaluation.answers import Answers, LabelAnswers
from residuum.evaluation.published import Published
from residuum.evaluation.scores import evaluation_of, in_full
from residuum.records import Chart, Matrix, Measurements, Page, Part, Table
from residuum.report.page import page_html

CLASSES = ("cat", "dog")
EPOCH = {"epoch": 1, "lr": 0.1, "train_error": 40.0, "val_error": 30.0, "images": 100, "seconds": 2.0}


def answers(seed: int = 0, count: int = 40) -> Answers:
    draw = np.random.default_rng(seed)
    labels, predictions = draw.integers(0, 2, count), draw.integers(0, 2, count)
    return Answers(
        [f"{number}.png" for number in range(count)],
        CLASSES,
        labels,
        predictions,
        draw.uniform(0.5, 1, count).astype(np.float32),
        (labels != predictions).astype(np.int64),
        draw.uniform(0, 1, count).astype(np.float32),
    )


def label_answers() -> LabelAnswers:
    labels = np.tile(np.array([[1, 0], [0, 1]], np.uint8), (20, 1))
    return LabelAnswers(
        [f"{number}.png" for number in range(40)], CLASSES, labels, labels.astype(np.float32), np.zeros(40, np.float32)
    )


def record(path: str = "runs/a", said: Answers | LabelAnswers | None = None, **changes: Any) -> RunRecord:
    """A finished run of LeNet on two classes; `changes` are of its configuration, its data and its manifest."""
    said = said or answers()
    model = {"name": changes.pop("model", "lenet5"), "shortcut": None}
    used = {"spec": "photos", "classes": list(CLASSES), "images": {"train": 100, "test": 40}, "fingerprint": "f" * 32}
    manifest = {
        "status": "finished",
        "failure": None,
        "run": {"model": model, "data": {"size": 28, "channels": 1}, "seed": changes.pop("seed", 0)},
        "data": used | changes.pop("data", {}),
        **changes,
    }
    measured = {"test": in_full(evaluation_of(said, "1-crop 28"), said)}
    return RunRecord(Path(path), manifest, (EPOCH,), measured, {"test": said}, {}, {}, None, ())


def parts(page: Page, title: str) -> tuple[Part, ...]:
    (found,) = (section.parts for section in page.sections if section.title == title)
    return found


def texts(page: Page, title: str) -> list[str]:
    return [part for part in parts(page, title) if isinstance(part, str)]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["A/run", "B/run"], ["A/run", "B/run"]),
        (["x/A/run", "y/A/run"], ["x/A/run", "y/A/run"]),
        (["A/run", "B/../A/run"], ["run", "run"]),
        ([], []),
    ],
)
def test_runs_are_called_by_the_shortest_tails_that_tell_them_apart(paths: list[str], names: list[str]) -> None:
    assert names_apart([Path(path) for path in paths]) == names


@pytest.mark.parametrize(
    ("names", "said"),
    [("a", "a"), ("ab", "a and b"), ("aba", "a and b"), ("abc", "a, b and c"), ("abcde", "a, b, c and 2 more")],
)
def test_a_title_names_each_thing_once_and_at_most_three(names: str, said: str) -> None:
    assert in_a_row(names) == said


def test_title_and_subtitle_say_what_ran_on_what_and_how_it_ended() -> None:
    page = run_page([record()])
    assert page.title == "lenet5 on photos"
    assert page.subtitle == f"Run {Path('runs/a')}: finished"
    page = run_page([record("A/run"), record("B/run", model="resnet8", status="failed")])
    assert page.title == "lenet5 and resnet8 on photos"
    assert page.subtitle == "Runs: A/run (finished), B/run (failed)"


def test_every_page_can_be_drawn() -> None:
    runs = [record(), record("runs/b", answers(1), seed=1), record("runs/c", label_answers())]
    for chosen in (runs[:1], runs[:2], runs, runs[2:]):
        assert page_html(run_page(chosen)).startswith("<!DOCTYPE html>")


def test_a_run_that_failed_says_why_even_without_a_score() -> None:
    failed = replace(record(failure={"message": "the loss is NaN", "images": ["0.png"]}), evaluations={}, answers={})
    assert texts(run_page([failed]), "Results") == ["failed: the loss is NaN (images: 0.png)"]
    assert texts(run_page([record(), replace(failed, path=Path("b"))]), "Results")[0].startswith("b: failed")


def test_what_could_not_be_read_is_told() -> None:
    assert "test.csv is not there" in texts(run_page([replace(record(), faults=("test.csv is not there",))]), "Results")


def test_published_figures_stand_beside_the_split_that_is_judged_and_once_a_network() -> None:
    row = Published("resnet20", "A", "CIFAR-10 test", "1-crop 32", 8.75, None, "", "He et al. 2015, table 6")
    both = replace(row, top5_error=10.02, note="median of 5")
    known = replace(record(), published={"test": (row, both), "val": (row,)})
    figures = [
        "top-1 error 8.75 % (He et al. 2015, table 6).",
        "top-1 error 8.75 %, top-5 error 10.02 % (He et al. 2015, table 6; median of 5).",
    ]
    assert texts(run_page([known]), "Results") == [f"Published: {figure}" for figure in figures]
    several = texts(run_page([known, replace(known, path=Path("b"))]), "Results")
    assert [text for text in several if "Published" in text] == [f"Published of lenet5: {figure}" for figure in figures]


def test_several_runs_are_compared_by_their_names_and_share_a_scale() -> None:
    page = run_page([record("A/run"), record("B/run", answers(1))])
    tiles, table, meaning, *_ = parts(page, "Results")
    assert isinstance(tiles, Measurements)
    assert isinstance(table, Table)
    assert tiles.one_scale
    assert [name for name, _, _ in tiles.items] == ["A/run: top-1 error", "B/run: top-1 error"]
    assert [row[0] for row in table.rows] == ["A/run", "B/run"]
    assert "McNemar" in str(meaning)


def test_runs_that_cannot_be_compared_say_so_and_share_no_scale() -> None:
    page = run_page([record(), record("runs/b", label_answers())])
    tiles, reason, *_ = parts(page, "Results")
    assert isinstance(tiles, Measurements)
    assert not tiles.one_scale
    assert str(reason).startswith("The runs are not compared: ")


def test_a_run_keeps_its_number_in_every_panel() -> None:
    short = replace(record(), metrics=({"epoch": 1, "lr": 0.1},))
    (chart, *paces) = parts(run_page([short, record("runs/b")]), "Training")
    assert isinstance(chart, Chart)
    error, rate = chart.panels
    assert [(series.run, series.is_training) for series in error] == [(1, True), (1, False)]
    assert [(series.run, series.is_training) for series in rate] == [(0, False), (1, False)]
    assert paces[1] == "b: 1 epoch in 2 s of training, 50 images/s."


def test_each_run_has_its_matrix_and_its_classes_one_by_one() -> None:
    page = run_page([record(), record("runs/b", answers(1))])
    matrices = [part for part in parts(page, "Which classes are taken for which") if isinstance(part, Matrix)]
    tables = [part for part in parts(page, "Class by class") if isinstance(part, Table)]
    assert [matrix.title for matrix in matrices] == ["a, test", "b, test"]
    assert [table.title for table in tables] == ["a: Per class, in %", "b: Per class, in %"]


def test_calibration_is_told_once_and_whether_its_temperature_flatters() -> None:
    fitted = replace(record(), temperature={"value": 1.3689, "fitted_on": "val"}, calibrated={"test": answers()})
    chart, error, temperature = parts(run_page([fitted]), "Calibration")
    assert isinstance(chart, Chart)
    assert [series.name for series in chart.panels[0]] == ["perfect calibration", "a", "a, with temperature"]
    assert str(error).count("calibration error") == 1
    assert temperature == "Temperature 1.37, fitted on val."
    same = replace(fitted, temperature={"value": 1.3689, "fitted_on": "test"})
    assert "flatters" in texts(run_page([same]), "Calibration")[1]


def test_settings_that_differ_and_those_that_do_not_are_all_there() -> None:
    page = run_page([record(), record("runs/b", seed=1)])
    differing, same = parts(page, "What differs in the settings")
    assert isinstance(differing, Table)
    assert isinstance(same, Table)
    assert differing.columns == ("field", "a", "b")
    assert differing.rows == (("seed", "0", "1"),)
    assert same.title == "What is the same"
    assert ("model.name", "lenet5") in same.rows
    assert "seed" not in {row[0] for row in same.rows}


def test_each_different_network_is_summed_up_once() -> None:
    assert len(parts(run_page([record(), record("runs/b")]), "The network")) == 2
    both = texts(run_page([record(), record("runs/b", model="resnet8")]), "The networks")
    assert [text.split()[0] for text in both] == ["lenet5", "resnet8"]


def test_data_that_differ_are_told() -> None:
    assert not [text for text in texts(run_page([record(), record("b")]), "Data") if "differ" in text]
    other = record("runs/b", data={"fingerprint": "0" * 32})
    held_out = replace(other, evaluations={"val": other.evaluations["test"]})
    told = texts(run_page([record(), held_out]), "Data")
    assert told[0] == f"The data differ, by their fingerprints: a {'f' * 12}, b {'0' * 12}."
    assert told[1] == "The runs are judged by different splits: a test, b val."


def test_names_that_turn_the_direction_of_writing_turn_nothing_else() -> None:
    page = run_page([record(data={"spec": "\u202egnp"})])
    assert page.title == "lenet5 on \u2068\u202egnp\u2069"
