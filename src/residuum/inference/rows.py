"""Predictions as rows of a file: JSON lines, CSV, or parquet. A row is made of one prediction alone."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residuum.errors import UserError, missing_extra
from residuum.files import whole_file

if TYPE_CHECKING:
    from residuum.inference.predict import Prediction

SUFFIXES = (".jsonl", ".csv", ".parquet")
_GROUP_ROWS, _GROUP_BYTES = 2**16, 2**26  # of parquet: what is read, or skipped, at once


@dataclass(frozen=True)
class Rows:
    """How a file of rows is written from its start to its end: the head, then block after block.

    has_features: whether there is room for them. ends_as_parquet: the blocks are Arrow's and make a file of parquet
    only once they are complete: see `write_parquet`.
    """

    head: bytes
    block: Callable[[Sequence["Prediction"]], bytes]
    has_features: bool = True
    ends_as_parquet: bool = False


def rows_for(suffix: str, top: int, features: bool) -> Rows:
    """The rows of a file with this suffix, for `top` classes each. Raises UserError for what it cannot hold."""
    if suffix == ".jsonl":
        return Rows(b"", lambda block: _encoded(map(json_line, block)))
    if suffix == ".parquet":
        return _parquet_rows(top, features)
    refuse_csv_of_features(features)
    return Rows(_encoded([csv_head(top)]), lambda block: _encoded(csv_line(one, top) for one in block))


def check_suffix(out: Path) -> str:
    """The suffix of a file of rows, in lower case. Raises UserError for one that they are not kept in."""
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        ending = f"ends in {suffix!r}" if suffix else "has no suffix"
        raise UserError(f"{out} {ending}; rows are kept as .jsonl, .csv or .parquet")
    return suffix


def refuse_csv_of_features(features: bool) -> None:
    """Raise UserError where there are `features`."""
    if features:
        raise UserError("a CSV has no room for --features; write .parquet or .jsonl")


def _encoded(lines: Iterable[str]) -> bytes:
    return "".join(lines).encode("utf-8", "backslashreplace")


def json_line(prediction: "Prediction") -> str:
    """One JSON object: `file`, `predictions` (each `label`, `probability`), `features` if asked for, `error` or null.

    A byte of a file name that is no UTF-8 stands as half a surrogate pair, as Python has it.
    """
    pairs = zip(prediction.labels, prediction.probabilities, strict=True)
    record: dict[str, Any] = {
        "file": str(prediction.path),
        "predictions": [{"label": label, "probability": _number(probability)} for label, probability in pairs],
    }
    if prediction.features is not None:
        record["features"] = list(map(_number, prediction.features.tolist()))
    return json.dumps({**record, "error": prediction.error}) + "\n"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def columns(top: int) -> tuple[str, ...]:
    """The names of the columns: `file,label,probability`, `label_2,probability_2` … to `top`, `error`."""
    later = chain.from_iterable((f"label_{rank}", f"probability_{rank}") for rank in range(2, top + 1))
    return ("file", "label", "probability", *later, "error")


def csv_head(top: int) -> str:
    """The line that names the columns."""
    return _csv(columns(top))


def csv_line(prediction: "Prediction", top: int) -> str:
    """A row under those names; what a prediction has not is empty."""
    pairs = zip(prediction.labels, prediction.probabilities, strict=True)
    cells = [cell for label, probability in pairs for cell in (label, f"{probability:.6g}")]
    blank = [""] * (2 * top - len(cells))
    return _csv((_unicode_name(prediction.path).replace("\r", "\\r"), *cells, *blank, prediction.error or ""))


def _csv(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _unicode_name(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# Parquet


def _parquet_rows(top: int, features: bool) -> Rows:
    pa, _ = _arrow()
    kinds = {"label": pa.string(), "probability": pa.float32(), "file": pa.string(), "error": pa.string()}
    fields = [(name, kinds[name.partition("_")[0]]) for name in columns(top)]
    if features:
        fields.insert(-1, ("features", pa.list_(pa.float32())))
    schema = pa.schema(fields)

    def block(predictions: Sequence["Prediction"]) -> bytes:
        rows = [list(_cells(prediction, top, features)) for prediction in predictions]
        arrays = [pa.array(values, kind) for values, (_, kind) in zip(zip(*rows, strict=True), fields, strict=True)]
        message: bytes = pa.record_batch(arrays, schema=schema).serialize().to_pybytes()
        return message

    return Rows(schema.serialize().to_pybytes(), block, ends_as_parquet=True)


def _cells(prediction: "Prediction", top: int, features: bool) -> Iterator[Any]:
    yield _unicode_name(prediction.path)
    for rank in range(top):
        is_there = rank < len(prediction.labels)
        yield prediction.labels[rank] if is_there else None
        yield prediction.probabilities[rank] if is_there else None
    if features:
        yield prediction.features
    yield prediction.error


def write_parquet(blocks: Path, out: Path) -> None:
    """A file of parquet from the blocks of all its rows, whole or not at all, in bounded memory."""
    pa, pq = _arrow()
    with (
        pa.OSFile(str(blocks)) as source,
        pa.ipc.open_stream(source) as batches,
        whole_file(out) as temporary,
        pq.ParquetWriter(temporary, batches.schema) as writer,
    ):
        for group in _groups(batches):
            writer.write_table(pa.Table.from_batches(group), row_group_size=_GROUP_ROWS)


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_extra("pyarrow", "hub", "writing parquet") from None
    return pa, pq
