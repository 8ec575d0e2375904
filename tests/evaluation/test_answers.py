"""Answers come back from a file as they were, whatever images and classes are called; a damaged file is refused."""

import csv
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from residuum.errors import UserError
from residuum.evaluation.answers import Answers, LabelAnswers, read_answers, write_answers

SUFFIXES = (".csv", ".parquet")
few = settings(max_examples=60, deadline=None)

# Every character but half a surrogate pair; and a carriage return, which CSV escapes.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8)
awkward = st.sampled_from(["", " ", ",", '"', "\n", "crane", "crane#1", "#0", "\r", "\\r", "caf\udce9", "[]", "NaN"])
class_names = st.lists(awkward | names, min_size=1, max_size=6).map(tuple)
shares = st.floats(0, 1, width=32)
losses = st.floats(0, width=32)


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    classes = draw(class_names)
    known = st.integers(-1, len(classes) - 1)
    row = st.tuples(names, known, known, shares, st.integers(1, len(classes)), losses)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    answered = [prediction >= 0 for _, _, prediction, *_ in rows]
    judged = [label >= 0 and prediction >= 0 for _, label, prediction, *_ in rows]
    return Answers(
        tuple(row[0] for row in rows),
        classes,
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] if has else math.nan for row, has in zip(rows, answered, strict=True)], np.float32),
        np.array([_rank(row, classes) if has else -1 for row, has in zip(rows, judged, strict=True)], np.int64),
        np.array([row[5] if has else math.nan for row, has in zip(rows, judged, strict=True)], np.float32),
    )


def _rank(row: tuple, classes: tuple[str, ...]) -> int:
    """0 for a right prediction, for no other."""
    return 0 if row[1] == row[2] else min(row[4], len(classes) - 1)


@st.composite
def label_answers(draw: st.DrawFn) -> LabelAnswers:
    classes = draw(class_names)
    yes_or_no = st.lists(st.integers(0, 1), min_size=len(classes), max_size=len(classes))
    said = st.lists(shares, min_size=len(classes), max_size=len(classes)) | st.just([math.nan] * len(classes))
    rows = draw(st.lists(st.tuples(names, yes_or_no, said, losses | st.just(math.nan)), min_size=1, max_size=6))
    shape = len(rows), len(classes)
    return LabelAnswers(
        tuple(row[0] for row in rows),
        classes,
        np.array([row[1] for row in rows], np.uint8).reshape(shape),
        np.array([row[2] for row in rows], np.float32).reshape(shape),
        np.array([row[3] for row in rows], np.float32),
    )


def through_a_file(given_answers: Answers | LabelAnswers, suffix: str) -> Answers | LabelAnswers:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"answers{suffix}")
        write_answers(path, given_answers)
        return read_answers(path, given_answers.classes)


def assert_same(left: Answers | LabelAnswers, right: Answers | LabelAnswers) -> None:
    assert type(left) is type(right)
    for name, value in vars(left).items():
        other = getattr(right, name)
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.shape) == (other.dtype, other.shape), name
            assert np.array_equal(value, other, equal_nan=value.dtype == np.float32), name
        else:
            assert tuple(value) == tuple(other), name


@few
@given(answers(), st.sampled_from(SUFFIXES))
def test_answers_are_read_as_they_were_written(given_answers: Answers, suffix: str) -> None:
    assert_same(given_answers, through_a_file(given_answers, suffix))


@few
@given(label_answers(), st.sampled_from(SUFFIXES))
def test_answers_of_several_labels_are_read_as_they_were_written(given_answers: LabelAnswers, suffix: str) -> None:
    assert_same(given_answers, through_a_file(given_answers, suffix))


def three_answers(
    classes: tuple[str, ...] = ("ant", "bee"), names: tuple[str, ...] = ("a.png", "b.png", "c.png")
) -> Answers:
    """One right, one of an unknown class, one unreadable."""
    return Answers(
        names,
        classes,
        np.array([1, -1, 0]),
        np.array([1, 0, -1]),
        np.array([0.9, 0.6, math.nan], np.float32),
        np.array([0, -1, -1]),
        np.array([0.105, math.nan, math.nan], np.float32),
    )


def test_the_csv_file_is_one_row_an_image_and_empty_where_there_is_nothing(tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.csv", three_answers())
    assert (tmp_path / "answers.csv").read_bytes().decode() == (
        "file,label,prediction,probability,rank,loss\na.png,bee,bee,0.9,0,0.105\nb.png,,ant,0.6,,\nc.png,ant,,,,\n"
    )


def test_several_labels_are_json_lists_with_a_column_of_probabilities_a_class(tmp_path: Path) -> None:
    probabilities = np.array([[0.5, 0.25], [math.nan, math.nan], [0.75, 1]], np.float32)
    labels = np.array([[1, 0], [0, 0], [1, 1]], np.uint8)
    losses = np.array([0.5, math.nan, math.inf], np.float32)
    answers = LabelAnswers(("a", "b", "c"), ("ant", "bée"), labels, probabilities, losses)
    write_answers(tmp_path / "answers.csv", answers)
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        assert [*csv.reader(file)] == [
            ["file", "labels", "predictions", "loss", "p:ant", "p:bée"],
            ["a", '["ant"]', '["ant"]', "0.5", "0.5", "0.25"],
            ["b", "[]", "", "", "", ""],
            ["c", '["ant", "bée"]', '["ant", "bée"]', "inf", "0.75", "1.0"],
        ]


def test_the_parquet_file_holds_the_same_with_nulls(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_answers(tmp_path / "answers.parquet", three_answers())
    rows = parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    assert rows[1] == {
        "file": "b.png",
        "label": None,
        "prediction": "ant",
        "probability": np.float32(0.6),
        "rank": None,
        "loss": None,
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_no_text_file_can_hold_are_escaped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    write_answers(path, three_answers(names=("caf\udce9.png", "\ud800", "line\rend")))
    found = read_answers(path, ("ant", "bee"))
    assert found.names == ("caf\\udce9.png", "\\ud800", "line\\rend" if suffix == ".csv" else "line\rend")


def test_classes_of_one_name_are_told_apart_by_their_index(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    write_answers(path, three_answers(("crane", "crane")))  # ImageNet has two: a bird, and a machine
    assert "a.png,crane#1,crane#1," in path.read_text()


def test_rights_and_confusion_are_scikit_learns_with_a_class_for_none() -> None:
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(-1, 3, (2, 200))
    ranks = np.where((labels < 0) | (predictions < 0), -1, labels != predictions)
    nothing = np.full(200, math.nan, np.float32)
    found = Answers(("",) * 200, ("a", "b", "c"), labels, predictions, nothing, ranks, nothing)
    true, said = (np.where(index < 0, 3, index) for index in (labels, predictions))
    assert np.array_equal(found.confusion(), confusion_matrix(true, said))
    assert found.right.sum() == np.trace(found.confusion()[:-1])
    assert found.judged.sum() == found.confusion()[:-1, :-1].sum()
    assert np.array_equal(found.right, found.ranks == 0)


HEADER = "file,label,prediction,probability,rank,loss\n"
DAMAGED = {
    "nothing": "",
    "no header": "a.png,bee,bee,0.9,0,0.1\n",
    "another table": "file,error\na.png,\n",
    "a cell too few": HEADER + "a.png,bee,bee,0.9,0\n",
    "a strange class": HEADER + "a.png,wasp,bee,0.9,0,0.1\n",
    "no number": HEADER + "a.png,bee,bee,high,0,0.1\n",
    "a rank beyond the classes": HEADER + "a.png,bee,bee,0.9,2,0.1\n",
    "a huge rank": HEADER + f"a.png,bee,bee,0.9,{10**30},0.1\n",
    "an open quote": HEADER + '"a.png,bee,bee,0.9,0,0.1\n',
    "no text": HEADER + "\ud800.png,bee,bee,0.9,0,0.1\n",
    "labels of other classes": "file,labels,predictions,loss,p:ant,p:wasp\n",
    "labels that are no list": "file,labels,predictions,loss,p:ant,p:bee\na.png,7,[],,0.1,0.2\n",
    "labels that are no names": "file,labels,predictions,loss,p:ant,p:bee\na.png,[null],[],,0.1,0.2\n",
    "labels in lists": "file,labels,predictions,loss,p:ant,p:bee\na.png,[[]],[],,0.1,0.2\n",
    "labels without end": "file,labels,predictions,loss,p:ant,p:bee\na.png," + "[" * 100_000 + ",[],,0.1,0.2\n",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_csv_file_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.csv"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="does not hold this model's answers") as refusal:
        read_answers(path, ("ant", "bee"))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value).removeprefix(str(path))) < 400


@few
@given(st.data())
def test_a_parquet_file_that_was_cut_short_is_refused(data: st.DataObject) -> None:
    pytest.importorskip("pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "answers.parquet")
        write_answers(path, three_answers())
        content = bytearray(path.read_bytes())
        cut = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match="answers"):
            read_answers(path, ("ant", "bee"))


def test_a_parquet_file_with_a_changed_value_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "answers.parquet"
    write_answers(path, three_answers())
    content, value = path.read_bytes(), np.float32(0.6).tobytes()
    path.write_bytes(content.replace(value, np.float32(0.8).tobytes(), 1))
    with pytest.raises(UserError, match="answers"):
        read_answers(path, ("ant", "bee"))


def test_a_parquet_file_of_other_columns_or_types_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "answers.parquet"
    for table in ({"image": [b"x"], "label": [1]}, {name: [b"\xff"] for name in HEADER.strip().split(",")}):
        parquet.write_table(pa.table(table), path)
        with pytest.raises(UserError, match="does not hold this model's answers"):
            read_answers(path, ("ant", "bee"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    for name in ("missing", "folder"):
        with pytest.raises(UserError, match="cannot read"):
            read_answers(tmp_path / f"{name}{suffix}", ("ant", "bee"))


@pytest.mark.parametrize("name", ["answers.xlsx", "answers"])
def test_another_suffix_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        write_answers(tmp_path / name, three_answers())
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        read_answers(tmp_path / name, ("ant", "bee"))
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_parquet_is_refused_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'residuum\[hub\]'"):
        write_answers(tmp_path / "answers.parquet", three_answers())
    assert not list(tmp_path.iterdir())
