"""Folders of image files: a folder a class, with or without split folders above them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from residuum.data.decoding import IMAGE_SUFFIXES
from residuum.data.sources.assembly import UNDIVIDED, Found, Reading
from residuum.data.sources.dataset import SPLIT_NAMES, natural_order
from residuum.data.splits import FileSplit, PackedNames
from residuum.errors import UserError, counted, listed

LAYOUT = "expected FOLDER/train/CLASS/*.jpg with val or test beside train, or FOLDER/CLASS/*.jpg"


def read_folder(folder: Path) -> Reading:
    """Split folders (train, val|valid|validation, test) of class folders, or class folders alone.

    A class is a folder that holds image files, at any depth, told by their suffixes; hidden files are left
    out. A folder named like a split is one when it has folders below: else "train" may be a class among cars.
    Raises UserError when there is no image in such a layout.
    """
    subfolders, stray = _look_into(folder)
    named = [name for name in subfolders if name.lower() in SPLIT_NAMES]
    divided = [name for name in named if _look_into(folder / name)[0]]
    if not subfolders or (not divided and len(named) == len(subfolders)):
        raise UserError(f"no class folders with images in {folder}; {LAYOUT}")
    notes = [f"Left out, outside of class folders: {counted(stray, 'image')}."] if stray else []
    if not divided:
        found = _read_classes(folder, "", notes)
        if not len(found.split):
            raise UserError(f"no images in {folder}; {LAYOUT}")
        return Reading({UNDIVIDED: found}, tuple(notes))
    beside = [name for name in subfolders if name not in divided]
    if beside:
        notes.append(f"Folders beside the splits are left out: {listed(beside)}.")
    return Reading(_read_splits(folder, divided, notes), tuple(notes))


def _read_splits(folder: Path, divided: list[str], notes: list[str]) -> dict[str, Found]:
    origins: dict[str, str] = {}
    splits: dict[str, Found] = {}
    for name in divided:
        split = SPLIT_NAMES[name.lower()]
        if split in origins:
            raise UserError(f"{folder} has two {split} splits, {origins[split]} and {name}; keep one")
        origins[split] = name
        found = _read_classes(folder, name, notes)
        if len(found.split):
            splits[split] = found
        else:
            notes.append(f"{name}: no images in its class folders; the split is left out.")
    if not splits:
        raise UserError(f"no images in {folder}; {LAYOUT}")
    return splits


def _read_classes(folder: Path, split: str, notes: list[str]) -> Found:
    """The class folders of a split ("" where there are no splits)."""
    class_names, stray = _look_into(folder / split)
    if split and stray:
        notes.append(f"{split}: left out, outside of class folders: {counted(stray, 'image')}.")
    names: list[str] = []
    classes: list[str] = []
    counts: list[int] = []
    others: list[str] = []
    for class_name in natural_order(class_names):
        files = sorted(_files(folder, os.path.join(split, class_name), set()))
        images = [name for name in files if _is_image_name(name)]
        others += [name for name in files if not _is_image_name(name)]
        if images:
            names += images
            classes.append(class_name)
            counts.append(len(images))
    empty = [name for name in class_names if name not in set(classes)]
    if empty and classes:
        notes.append(f"{split or 'The data'}: folders without images are no classes: {listed(empty)}.")
    if others:
        number, some = counted(len(others), "file"), listed(others, 2)
        notes.append(f"{split or 'The data'}: {number} without an image's suffix: {some}.")
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return Found(FileSplit(folder, PackedNames(names), labels), tuple(classes))


def _look_into(folder: Path) -> tuple[list[str], int]:
    """The folders in a folder, in natural order, and how many image files lie beside them."""
    folders, images = [], 0
    for entry in _entries(str(folder)):
        if _is_folder(entry):
            folders.append(entry.name)
        else:
            images += _is_image_name(entry.name)
    return natural_order(folders), images


def _files(folder: Path, inner: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Files below folder/inner, relative to folder; each real folder once, so that loops of links end."""
    place = os.path.join(folder, inner)
    status = os.stat(place)
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    for entry in _entries(place):
        path = f"{inner}/{entry.name}"
        if _is_folder(entry):
            yield from _files(folder, path, visited)
        else:
            yield path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "."]
    except OSError as error:
        raise UserError(f"cannot list the folder {folder}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and entry.name != "__MACOSX"
    except OSError:  # a link to itself: listed as a file, and reported as unreadable when it is read
        return False


def _is_image_name(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES
