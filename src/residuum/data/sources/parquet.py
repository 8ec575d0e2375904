"""Parquet files as the Hugging Face Hub lays them out. Needs pyarrow: imported when such data are opened."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from residuum.data.sources.assembly import UNDIVIDED, Found, Reading
from residuum.data.sources.builtin import default_root
from residuum.data.sources.dataset import SPLIT_NAMES, natural_order
from residuum.data.sources.hub import find_parquet
from residuum.data.splits import BytesSplit, Indices, Labels, NumberedNames
from residuum.errors import UserError, listed

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


def read_parquet(place: Path) -> Reading:
    """A parquet file, or a folder of them, with an image column ({bytes, path} or bytes) and a label column.

    Splits are told by the names of files and folders ("train-00000-of-00001.parquet", "val/0000.parquet"),
    class names by the schema's Hugging Face metadata; labels may also be numbers, strings, or lists
    (multi-label). Images are unpacked once to a file in the data cache, which all processes map. Raises
    UserError.
    """
    files = find_parquet(place) if place.is_dir() else [place]
    folder = place if place.is_dir() else place.parent
    _refuse_several_sets(folder, files)
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_split_name(file.relative_to(folder)) or UNDIVIDED, []).append(file)
    notes = []
    if len(groups) > 1 and UNDIVIDED in groups:
        without = listed(file.name for file in groups.pop(UNDIVIDED))
        notes.append(f"Files that name no split are left out: {without}.")
    return Reading({split: _read_split(split, group) for split, group in groups.items()}, tuple(notes))


def _split_name(path: Path) -> str | None:
    for part in (path.stem, *reversed(path.parent.parts)):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return None


def _refuse_several_sets(folder: Path, files: list[Path]) -> None:
    parents = {file.relative_to(folder).parent for file in files}
    sets = {"/".join(part for part in parent.parts if not _split_name(Path(part))) for parent in parents}
    if len(sets) > 1:
        names = listed(sorted(name or "." for name in sets))
        raise UserError(f"{folder} holds several data sets: {names}; give the folder of one (hf:owner/name/SET)")


def _read_split(split: str, files: list[Path]) -> Found:
    try:
        image, label = _columns(files)
        ends, unpacked = _unpack(files, image)
        labels, classes = _labels(files, label)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read the parquet files of {split}: {' '.join(str(error).split())}") from error
    return Found(BytesSplit(unpacked, ends, labels, NumberedNames(split, len(ends))), classes)


def _columns(files: list[Path]) -> tuple[str, str]:
    """The image and the label column, which every file must have."""
    columns = {file: pq.read_schema(file).names for file in files}
    for file, names in columns.items():
        if not set(IMAGE_COLUMNS) & set(names) or not set(LABEL_COLUMNS) & set(names):
            raise UserError(
                f"{file} has the columns {listed(names)}; expected {' or '.join(IMAGE_COLUMNS)} and "
                f"{' or '.join(LABEL_COLUMNS)}"
            )
    first = columns[files[0]]
    return next(n for n in IMAGE_COLUMNS if n in first), next(n for n in LABEL_COLUMNS if n in first)


def _unpack(files: list[Path], column: str) -> tuple[Indices, Path]:
    """Where each image ends in the file of all their bytes, and that file; made when first asked for."""
    status = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.blake2b(repr((column, status)).encode(), digest_size=16).hexdigest()
    unpacked = default_root() / "unpacked" / f"{key}.bin"
    index = unpacked.with_suffix(".npy")
    if not index.exists():  # written last; processes that do this at the same time write the same bytes
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with _whole_file(unpacked) as stream:
            lengths = [stream.write(content) for content in _contents(files, column)]
        with _whole_file(index) as stream:
            np.save(stream, np.cumsum(lengths, dtype=np.int64))
    return np.load(index), unpacked


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _contents(files: list[Path], column: str) -> Iterator[bytes]:
    """Every image's encoded bytes; none where a row holds no image."""
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256, columns=[column]):
            images = batch.column(0)
            if pa.types.is_struct(images.type):
                images = pc.struct_field(images, "bytes")
            if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
                raise UserError(f"{file}: column {column!r} holds {images.type}; expected encoded images as bytes")
            yield from (value.as_py() or b"" for value in images)


def _labels(files: list[Path], column: str) -> tuple[Labels, tuple[str, ...]]:
    values = pa.concat_tables([pq.read_table(file, columns=[column]) for file in files])[column]
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return _class_indices(files[0], column, values)
    flat, classes = _class_indices(files[0], column, pc.list_flatten(values))
    labels = np.zeros((len(values), len(classes)), np.uint8)
    rows = np.asarray(pc.list_parent_indices(values))
    labels[rows[flat >= 0], flat[flat >= 0]] = 1
    return labels, classes


def _class_indices(file: Path, column: str, values: Any) -> tuple[Indices, tuple[str, ...]]:
    """An Arrow array of labels as indices into a class list; -1 for null and for the Hub's -1, "no label"."""
    if pa.types.is_floating(values.type) or pa.types.is_nested(values.type):
        raise UserError(f"{file}: column {column!r} holds {values.type}; expected whole numbers or strings")
    given = values.to_pylist()
    numbers = pa.types.is_integer(values.type)
    names = _class_names(file, column) if numbers else None
    labelled = [value is not None and not (numbers and value < 0) for value in given]
    if names is None:
        texts = [str(value) if known else "" for value, known in zip(given, labelled, strict=True)]
        names = tuple(natural_order({text for text, known in zip(texts, labelled, strict=True) if known}))
        position = {name: index for index, name in enumerate(names)}
        indices = np.array([position.get(text, -1) for text in texts], np.int64)
    else:
        indices = np.array([value if known else -1 for value, known in zip(given, labelled, strict=True)], np.int64)
    if indices.max(initial=-1) >= len(names):
        raise UserError(f"{file}: label {indices.max()} is beyond its {len(names)} class names")
    return indices, names


def _class_names(file: Path, column: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel column, in the schema's Hugging Face metadata; None where there are none."""
    try:
        metadata = json.loads((pq.read_schema(file).metadata or {})[b"huggingface"])
        feature = metadata["info"]["features"][column]
        feature = feature.get("feature", feature)  # the element of a list
        return tuple(map(str, feature["names"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
