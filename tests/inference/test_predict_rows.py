"""A row says what a prediction does, in every format, also of names that no format likes."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from residuum.errors import UserError
from residuum.inference.predict import Prediction
from residuum.inference.rows import check_suffix, rows_for, write_parquet

ODD = "new\nline 'and' \"quotes\", comma\r.jpg"
NO_UNICODE = os.fsdecode(b"caf\xe9.jpg")
PREDICTIONS = (
    Prediction(Path("a,b.jpg"), ("ant", 'a "bee"'), (0.75, 0.25)),
    Prediction(Path("gone.jpg"), error="no such file"),
    Prediction(Path(ODD), ("ant", "bee"), (0.5, 0.5)),
    Prediction(Path(NO_UNICODE), ("ant", "bee"), (1.0, 0.0)),
)


def with_features(predictions: Sequence[Prediction]) -> list[Prediction]:
    vector = np.array([0.1, -2.5], np.float32)
    return [Prediction(p.path, p.labels, p.probabilities, p.error, None if p.error else vector) for p in predictions]


def read(suffix: str, predictions: Sequence[Prediction], folder: Path, *, top: int = 3, features: bool = False) -> list:
    """The rows of a file in two blocks, read by somebody else's reader."""
    rows = rows_for(suffix, top, features)
    content = rows.head + rows.block(predictions[:1]) + rows.block(predictions[1:])
    if suffix == ".jsonl":
        return [json.loads(line) for line in content.decode("utf-8").split("\n")[:-1]]
    if suffix == ".csv":
        return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "blocks").write_bytes(content)
    write_parquet(folder / "blocks", folder / "out.parquet")
    return parquet.read_table(folder / "out.parquet").to_pylist()


def test_json_lines_hold_each_file_with_its_classes_or_its_error(tmp_path: Path) -> None:
    first, second, third, fourth = read(".jsonl", PREDICTIONS, tmp_path)
    assert first["predictions"][0] == {"label": "ant", "probability": 0.75}
    assert second == {"file": "gone.jpg", "predictions": [], "error": "no such file"}
    assert third["file"] == ODD
    assert os.fsencode(fourth["file"]) == b"caf\xe9.jpg"


def test_json_has_no_word_for_what_is_no_number(tmp_path: Path) -> None:
    strange = Prediction(Path("a"), ("ant",), (float("nan"),), None, np.array([np.inf, 1], np.float32))
    (row,) = read(".jsonl", [strange], tmp_path, features=True)
    assert row["predictions"] == [{"label": "ant", "probability": None}]
    assert row["features"] == [None, 1]


def test_csv_has_one_row_a_file_and_a_column_for_errors(tmp_path: Path) -> None:
    first, second, third, fourth = read(".csv", PREDICTIONS, tmp_path)
    assert (first["file"], first["label"], first["probability"]) == ("a,b.jpg", "ant", "0.75")
    assert (first["label_2"], first["label_3"], first["error"]) == ('a "bee"', "", "")
    assert (second["label"], second["error"]) == ("", "no such file")
    assert third["file"] == ODD.replace("\r", "\\r")
    assert fourth["file"] == "caf\\xe9.jpg"


def test_parquet_has_the_columns_of_a_csv(tmp_path: Path) -> None:
    first, second, third, fourth = read(".parquet", PREDICTIONS, tmp_path)
    names = ["file", "label", "probability", "label_2", "probability_2", "label_3", "probability_3", "error"]
    assert list(first) == names
    assert list(first.values()) == ["a,b.jpg", "ant", 0.75, 'a "bee"', 0.25, None, None, None]
    assert list(second.values()) == ["gone.jpg", *[None] * 6, "no such file"]
    assert third["file"] == ODD
    assert fourth["file"] == "caf\\xe9.jpg"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_features_stand_in_the_row_of_their_file(tmp_path: Path, suffix: str) -> None:
    rows = read(suffix, with_features(PREDICTIONS), tmp_path, features=True)
    expected = np.array([0.1, -2.5], np.float32)
    assert [row.get("features") is None for row in rows] == [False, True, False, False]
    np.testing.assert_array_equal(np.array(rows[0]["features"], np.float32), expected)


def test_features_in_parquet_are_lists_of_float32(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    read(".parquet", with_features(PREDICTIONS), tmp_path, features=True)
    assert str(parquet.read_schema(tmp_path / "out.parquet").field("features").type.value_type) == "float"


def test_many_blocks_make_few_groups_of_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = rows_for(".parquet", 2, False)
    (tmp_path / "blocks").write_bytes(rows.head + b"".join(rows.block(PREDICTIONS) for _ in range(100)))
    write_parquet(tmp_path / "blocks", tmp_path / "out.parquet")
    found = parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert (found.num_rows, found.num_row_groups) == (400, 1)


def test_a_file_without_rows_is_a_file_of_its_kind(tmp_path: Path) -> None:
    assert [read(suffix, [], tmp_path) for suffix in (".jsonl", ".csv")] == [[], []]
    assert rows_for(".csv", 1, False).head == b"file,label,probability,error\n"


def test_what_a_file_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match=r"write \.parquet or \.jsonl"):
        rows_for(".csv", 3, True)
    with pytest.raises(UserError, match=r"ends in '\.txt'; rows are kept as \.jsonl, \.csv or \.parquet"):
        check_suffix(Path("out.txt"))
    with pytest.raises(UserError, match="has no suffix"):
        check_suffix(Path("out"))
