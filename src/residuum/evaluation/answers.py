"""What a model said of every image: kept, written to a file and read again, so that nothing needs evaluating twice."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residuum.errors import UserError, in_words, listed, missing_extra, printable
from residuum.evaluation.metrics import UNKNOWN
from residuum.files import whole_file

_Columns = dict[str, Any]
"""By name, in order: text, rank and lists of text as lists, None for none; numbers as (N,) float32, NaN for none."""

_ROUNDING = 1e-5  # by which float32 may exceed a probability of 1
_PROBABILITY = "p:"  # before the class's name, where each class has a column


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of N images with one label each, in the order of their split; the arrays are (N,).

    labels: class indices, -1 for a class that the model does not know. predictions: class indices, -1 where
    there is no answer: the image could not be read, or its scores are not numbers. confidences: the
    probability of the prediction in [0, 1], NaN without one. ranks: how many classes rank before the true one,
    -1 where there is no answer or no known class. losses: the cross-entropy in nats, infinite for scores that are
    not numbers, NaN where the image could not be read or is of no known class.
    """

    names: Sequence[str]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    ranks: NDArray[np.int64]
    losses: NDArray[np.float32]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether the prediction is the label: never so without an answer or a known class."""
        return (self.predictions == self.labels) & (self.labels >= 0)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(N,) whether there is an answer and a known class, that is a rank."""
        return self.ranks >= 0

    def confusion(self) -> NDArray[np.int64]:
        """(K + 1, K + 1) images, rows true and columns predicted class.

        The last row holds those of a class that the model does not know, the last column those without an answer.
        """
        size = len(self.classes) + 1
        true, said = (np.where(index >= 0, index, size - 1) for index in (self.labels, self.predictions))
        return np.bincount(true * size + said, minlength=size**2).reshape(size, size)


@dataclass(frozen=True, eq=False)
class LabelAnswers:
    """What a model said of N images with several labels each, in the order of their split.

    labels: (N, K) uint8, 1 for the classes an image has. probabilities: (N, K) float32 in [0, 1], NaN for scores that
    are not numbers, as is the whole row where the image could not be read. losses: (N,) float32, the mean over classes
    of the binary cross-entropy in nats, NaN where the image could not be read.
    """

    names: Sequence[str]
    classes: tuple[str, ...]
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    losses: NDArray[np.float32]


def write_answers(path: Path, answers: Answers | LabelAnswers) -> None:
    """Write one row an image to a .csv or .parquet file (the latter needs pyarrow), whole or not at all.

    Columns: file, label, prediction, probability, rank, loss; of several labels file, labels, predictions (those of a
    probability from 0.5; in CSV both are JSON lists), loss, then "p:NAME" for each class. What there is none of stays
    empty. Classes are written by name, with their index behind it where several have the same. What a file cannot hold
    is escaped: in CSV a carriage return, in both half a surrogate pair. Raises UserError for another suffix and without
    pyarrow.
    """
    write = {".csv": _write_csv, ".parquet": _write_parquet}[check_suffix(path)]
    write(path, _columns(answers) if isinstance(answers, Answers) else _label_columns(answers))


def read_answers(path: Path, classes: Sequence[str]) -> Answers | LabelAnswers:
    """What `write_answers` wrote of a model with these classes: the same values, names as they were escaped.

    Raises UserError for a file that cannot be read, is damaged or belongs to other classes.
    """
    read = {".csv": _read_csv, ".parquet": _read_parquet}[check_suffix(path)]
    try:
        columns = read(path)
        _check_columns(tuple(columns), tuple(classes))
        if not len(columns["file"]):
            raise ValueError("it holds no image")
        make = _label_answers if "labels" in columns else _answers
        return make(columns, tuple(classes))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path} ({in_words(error)})") from None
    except (ValueError, csv.Error, RecursionError) as error:
        reason = printable(" ".join(str(error).split()), 160)
        raise UserError(f"{path} does not hold this model's answers ({reason})") from None


def check_suffix(path: Path) -> str:
    """The suffix of a file of answers, in lower case. Raises UserError for one that they are not kept in."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        ending = f"ends in {suffix!r}" if suffix else "has no suffix"
        raise UserError(f"{path} {ending}; answers are kept as .csv or .parquet")
    return suffix


# Between answers and columns.


def _class_texts(classes: Sequence[str]) -> tuple[str, ...]:
    """What stands for each class in a file: its name, with its index where that is empty or another class's too."""
    texts = [stored_name(name) for name in classes]
    taken = Counter(["", "", *texts])
    for index, text in enumerate(texts):
        if taken[text] > 1:
            texts[index] = _free(f"{text}#{index}", taken)
    return tuple(texts)


def _free(text: str, taken: Counter[str]) -> str:
    while text in taken:
        text += "#"
    taken[text] += 1
    return text


def stored_name(name: str) -> str:
    """What the name of an image is when it has been written and read."""
    return _storable(name).replace("\r", "\\r")


def _storable(text: str) -> str:
    """Text as UTF-8 can hold it: half a surrogate pair, of a name that is not UTF-8, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _columns(answers: Answers) -> _Columns:
    texts = (*_class_texts(answers.classes), None)  # the last stands for -1
    return {
        "file": [_storable(name) for name in answers.names],
        "label": [texts[index] for index in answers.labels.tolist()],
        "prediction": [texts[index] for index in answers.predictions.tolist()],
        "probability": answers.confidences,
        "rank": [None if rank < 0 else rank for rank in answers.ranks.tolist()],
        "loss": answers.losses,
    }


def _label_columns(answers: LabelAnswers) -> _Columns:
    texts = _class_texts(answers.classes)
    unread = [bool(row.all()) for row in np.isnan(answers.probabilities)]
    said = zip(_names_of(texts, answers.probabilities >= 0.5), unread, strict=True)
    return {
        "file": [_storable(name) for name in answers.names],
        "labels": _names_of(texts, answers.labels > 0),
        "predictions": [None if nothing else names for names, nothing in said],
        "loss": answers.losses,
        **{_PROBABILITY + text: answers.probabilities[:, k] for k, text in enumerate(texts)},
    }


def _names_of(texts: Sequence[str], chosen: NDArray[np.bool_]) -> list[list[str]]:
    return [[texts[k] for k in np.flatnonzero(row).tolist()] for row in chosen]


def _check_columns(columns: tuple[str, ...], classes: tuple[str, ...]) -> None:
    expected: tuple[str, ...] = ("file", "label", "prediction", "probability", "rank", "loss")
    if "labels" in columns:
        expected = ("file", "labels", "predictions", "loss", *(_PROBABILITY + text for text in _class_texts(classes)))
    if columns != expected:
        raise ValueError(f"its columns are {listed(columns, 8)} and not {listed(expected, 8)}")


def _answers(columns: _Columns, classes: tuple[str, ...]) -> Answers:
    position = {**_positions(classes), None: UNKNOWN}
    ranks = [UNKNOWN if rank is None else rank for rank in columns["rank"]]
    if not all(UNKNOWN <= rank < len(classes) for rank in ranks):
        raise ValueError(f"a rank lies beyond its {len(classes)} classes")
    answers = Answers(
        names=tuple(columns["file"]),
        classes=classes,
        labels=_indices(position, columns["label"]),
        predictions=_indices(position, columns["prediction"]),
        confidences=columns["probability"],
        ranks=np.array(ranks, np.int64),
        losses=columns["loss"],
    )
    _refuse_contradictions(answers)
    return answers


def _refuse_contradictions(answers: Answers) -> None:
    if not np.array_equal(answers.ranks == 0, answers.right):
        raise ValueError("a prediction and a rank contradict each other")
    _refuse_beyond("a probability", answers.confidences, most=1 + _ROUNDING)
    _refuse_beyond("a loss", answers.losses, most=np.inf)


def _refuse_beyond(what: str, values: NDArray[np.float32], most: float) -> None:
    known = values[~np.isnan(values)]
    if ((known < 0) | (known > most)).any():
        raise ValueError(f"{what} lies beyond 0 to {most:g}")


def _label_answers(columns: _Columns, classes: tuple[str, ...]) -> LabelAnswers:
    position = _positions(classes)
    labels = np.zeros((len(columns["file"]), len(classes)), np.uint8)
    for row, names in zip(labels, columns["labels"], strict=True):
        if not isinstance(names, list):
            raise ValueError("an image has no list of labels")
        row[_indices(position, names)] = 1
    names, _, _, losses, *probabilities = columns.values()
    shape = len(classes), len(labels)
    rows = np.array(probabilities, np.float32).reshape(shape).T.copy()
    _refuse_beyond("a probability", rows, most=1 + _ROUNDING)
    _refuse_beyond("a loss", losses, most=np.inf)
    return LabelAnswers(tuple(names), classes, labels, rows, losses)


def _positions(classes: tuple[str, ...]) -> dict[str | None, int]:
    return {text: index for index, text in enumerate(_class_texts(classes))}


def _indices(position: Mapping[str | None, int], names: Iterable[Any]) -> NDArray[np.int64]:
    try:
        return np.array([position[name] for name in names], np.int64)
    except (KeyError, TypeError) as error:  # a name that is none of them, or no text at all
        raise ValueError(f"no class of the model: {error}") from None


# Between columns and files.


def _write_csv(path: Path, columns: _Columns) -> None:
    texts = [[_text(cell) for cell in column] for column in columns.values()]
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*texts, strict=True))


def _text(cell: Any) -> str:
    """A cell of a CSV file; a number as the shortest text that gives the same float32."""
    if isinstance(cell, list):
        return json.dumps(cell, ensure_ascii=False)
    if cell is None or cell != cell:
        return ""
    return str(cell).replace("\r", "\\r")  # which Python's reader would take for the end of the row


def _read_csv(path: Path) -> _Columns:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = [*csv.reader(file, strict=True)] or [[]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, the first has {len(header)}")
    texts = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: _cells(name, column) for name, column in zip(header, texts, strict=True)}


def _cells(name: str, texts: Sequence[str]) -> Any:
    """A column of a CSV file, by its name, as in `_Columns`."""
    if name == "file":
        return list(texts)
    if name in ("label", "prediction"):
        return [text or None for text in texts]
    if name == "rank":
        return [int(text) if text else None for text in texts]
    if name in ("labels", "predictions"):
        return [json.loads(text) if text else None for text in texts]
    return np.array([float(text) if text else math.nan for text in texts], np.float32)


def _write_parquet(path: Path, columns: _Columns) -> None:
    pa, pq = _arrow("writing parquet")
    arrays = {name: pa.array(cells, _arrow_type(pa, name), from_pandas=True) for name, cells in columns.items()}
    with whole_file(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, write_page_checksum=True)


def _read_parquet(path: Path) -> _Columns:
    pa, pq = _arrow("reading parquet")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        table = table.cast(pa.schema([(name, _arrow_type(pa, name)) for name in table.column_names]))
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    columns = zip(table.column_names, table.columns, strict=True)
    return {name: cells.to_numpy() if cells.type == pa.float32() else cells.to_pylist() for name, cells in columns}


def _arrow(purpose: str) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "hub", purpose) from error
    return pa, pq


def _arrow_type(pa: Any, name: str) -> Any:
    if name in ("file", "label", "prediction"):
        return pa.string()
    if name in ("labels", "predictions"):
        return pa.list_(pa.string())
    return pa.int64() if name == "rank" else pa.float32()
