"""Manifests: CSV or JSON-lines files that name images, their labels and, where given, their splits."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from residuum.data.sources.assembly import UNDIVIDED, Found, Reading
from residuum.data.sources.dataset import SPLIT_NAMES, natural_order
from residuum.data.splits import FileSplit, Labels, PackedNames
from residuum.errors import UserError, unknown_name

SEPARATOR = "|"
FORM = "expected path,label[,split] and a line an image"


class _Row(NamedTuple):
    line: int
    path: str
    labels: tuple[str, ...]
    split: str


def read_manifest(file: Path, root: Path | None) -> Reading:
    """A CSV file with the header `path,label[,split]`, or JSON lines with these keys.

    Paths are relative to `root`, else to the manifest's folder. Several labels on a line, separated by | (in
    JSON also a list), make the data multi-label, and a line without any is then right. Raises UserError with
    the line for what cannot be read; an image that is not there counts as bad when its turn comes.
    """
    parse = _csv_rows if file.suffix.lower() == ".csv" else _json_rows
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(parse(file, stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if not rows:
        raise UserError(f"{file} names no images; {FORM}")
    multi_label = any(len(row.labels) > 1 for row in rows)
    by_split: dict[str, list[_Row]] = {}
    for row in rows:
        if not row.labels and not multi_label:
            raise _error(file, row.line, "the label is empty")
        by_split.setdefault(_split_name(file, row), []).append(row)
    if UNDIVIDED in by_split and len(by_split) > 1:
        raise _error(file, by_split[UNDIVIDED][0].line, "no split, but other lines have one")
    folder = root or file.parent
    return Reading({split: _found(folder, rows, multi_label) for split, rows in by_split.items()})


def _csv_rows(file: Path, stream: TextIO) -> Iterator[_Row]:
    reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
    missing = {"path", "label"} - set(reader.fieldnames or ())
    if missing:
        raise _error(file, 1, f"the header has no column {' and no '.join(sorted(missing))}; {FORM}")
    for fields in reader:
        if None in fields or None in fields.values():
            raise _error(file, reader.line_num, f"not the header's {len(reader.fieldnames or ())} columns")
        yield _row(file, reader.line_num, fields)


def _json_rows(file: Path, stream: TextIO) -> Iterator[_Row]:
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _error(file, line, f"not JSON ({error})") from error
        if not isinstance(fields, dict) or not {"path", "label"} <= fields.keys():
            raise _error(file, line, 'expected an object with "path" and "label"')
        yield _row(file, line, fields)


def _row(file: Path, line: int, fields: dict[str, Any]) -> _Row:
    label = fields["label"]
    if isinstance(label, dict):
        raise _error(file, line, "the label is an object; expected text, a number or a list")
    several = label if isinstance(label, list) else str("" if label is None else label).split(SEPARATOR)
    labels = tuple(dict.fromkeys(text for text in (str(one).strip() for one in several) if text))
    path = str(fields["path"] or "").strip()
    if not path:
        raise _error(file, line, "the path is empty")
    if not _can_name_a_file(path):
        raise _error(file, line, f"the path {path!a} has a character that no file name can have")
    return _Row(line, path, labels, str(fields.get("split") or "").strip())


def _can_name_a_file(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _split_name(file: Path, row: _Row) -> str:
    if not row.split:
        return UNDIVIDED
    if row.split.lower() not in SPLIT_NAMES:
        raise _error(file, row.line, str(unknown_name("split", row.split, SPLIT_NAMES)))
    return SPLIT_NAMES[row.split.lower()]


def _found(folder: Path, rows: list[_Row], multi_label: bool) -> Found:
    classes = tuple(natural_order({label for row in rows for label in row.labels}))
    position = {name: index for index, name in enumerate(classes)}
    labels: Labels
    if multi_label:
        labels = np.zeros((len(rows), len(classes)), np.uint8)
        for hot, row in zip(labels, rows, strict=True):
            hot[[position[label] for label in row.labels]] = 1
    else:
        labels = np.array([position[row.labels[0]] for row in rows], np.int64)
    return Found(FileSplit(folder, PackedNames(row.path for row in rows), labels), classes)


def _error(file: Path, line: int, problem: str) -> UserError:
    return UserError(f"{file}, line {line}: {problem}")
