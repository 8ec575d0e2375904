"""From what a reader found to a data set: classes matched by name, a missing validation split drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from residuum import randomness
from residuum.data.packed_split import PackedSplit
from residuum.data.sources.dataset import DataSet
from residuum.data.splits import ArraySplit, BytesSplit, FileSplit, Labels, Split, SubSplit
from residuum.errors import UserError, counted, listed

UNDIVIDED = "undivided"


@dataclass(frozen=True, eq=False)
class Found:
    """One split as a reader found it: its labels index its own class list."""

    split: ArraySplit | FileSplit | BytesSplit | PackedSplit
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader found: splits by name ("train", "val", "test") or all images as UNDIVIDED; and notes."""

    splits: dict[str, Found]
    notes: tuple[str, ...] = ()

    @property
    def multi_label(self) -> bool:
        return any(found.split.labels.ndim == 2 for found in self.splits.values())


def assemble(
    spec: str, reading: Reading, classes: Sequence[str] | None, val_fraction: float, split_seed: int
) -> DataSet:
    """The data set of a reading under `classes`, or else under the class list of its training split."""
    first = next(name for name in (UNDIVIDED, "train", "val", "test") if name in reading.splits)
    reference = tuple(classes) if classes is not None else reading.splits[first].classes
    notes = list(reading.notes)
    if classes is None and first in ("val", "test"):
        notes.append(f"There is no train split; the class list is that of {first}.")
    _refuse_strangers(spec, reading.splits[first].classes, reference)
    splits: dict[str, Split] = {}
    for name in (UNDIVIDED, "train", "val", "test"):
        if name in reading.splits:
            labels, remarks = _match(name, reading.splits[name], reference)
            splits[name] = replace(reading.splits[name].split, labels=labels)
            notes += remarks
    drawn = (val_fraction, split_seed) if UNDIVIDED in splits else None
    if UNDIVIDED in splits:
        # Drawn on the data's own labels, so that another class list does not draw another split.
        splits, remarks = _draw(splits[UNDIVIDED], reading.splits[UNDIVIDED], val_fraction, split_seed)
        notes += remarks
    return DataSet(spec, reference, splits, reading.multi_label, tuple(notes), drawn)


def _refuse_strangers(spec: str, theirs: tuple[str, ...], reference: tuple[str, ...]) -> None:
    if not theirs:
        raise UserError(f"no image of {spec} has a label")
    if not set(theirs) & set(reference):
        raise UserError(
            f"{spec} and the model share no class; the data's are {listed(theirs)}, the model's {listed(reference)}"
        )


def _match(name: str, found: Found, reference: tuple[str, ...]) -> tuple[Labels, list[str]]:
    """The labels of a split as indices into the reference list, by name, and notes on what does not match."""
    position = {key: index for index, key in enumerate(_told_apart(reference))}
    table = np.array([position.get(key, -1) for key in _told_apart(found.classes)], np.int64)
    own = found.split.labels
    if own.ndim == 1:
        labels: Labels = np.append(table, -1)[own]  # an own label of -1 stays one
        counts = np.bincount(labels[labels >= 0], minlength=len(reference))
        own_counts = np.bincount(own[own >= 0], minlength=len(table))
        unlabelled = int((own < 0).sum())
    else:
        labels = np.zeros((len(own), len(reference)), np.uint8)
        labels[:, table[table >= 0]] = own[:, table >= 0]
        counts, own_counts, unlabelled = labels.sum(axis=0), own.sum(axis=0), 0
    notes = []
    subject = "The data" if name == UNDIVIDED else name
    absent = [reference[i] for i in np.flatnonzero(counts == 0)]
    if absent:
        notes.append(f"{subject}: no images of {listed(absent)}.")
    unknown = [i for i in np.flatnonzero(own_counts) if table[i] < 0]
    if unknown:
        number, names = int(own_counts[unknown].sum()), listed(found.classes[i] for i in unknown)
        effect = f"{counted(number, 'image')}, counted as errors" if own.ndim == 1 else "left out"
        notes.append(f"{subject}: not in the class list: {names} ({effect}).")
    if unlabelled:
        notes.append(f"{subject}: {counted(unlabelled, 'image')} without a label.")
    return labels, notes


def _told_apart(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names with how often they came before: ImageNet's list has two cranes, which are different classes."""
    before: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, before[name]))
        before[name] += 1
    return keys


def _draw(split: Split, found: Found, fraction: float, seed: int) -> tuple[dict[str, Split], list[str]]:
    labels = found.split.labels
    strata = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    held_out = stratified_draw(strata, fraction, seed)
    count = int(held_out.sum())
    share = f"{fraction:.0%}{' of each class' if labels.ndim == 1 else ''}"
    total = counted(len(labels), "image")
    notes = [f"The data have no splits; val was drawn: {count:,} of {total} ({share}, seed {seed})."]
    single = [found.classes[i] for i in np.flatnonzero(np.bincount(strata[strata >= 0]) == 1)]
    if single and labels.ndim == 1:
        notes.append(f"One image only, which went to train: {listed(single)}.")
    parts: dict[str, Split] = {"train": SubSplit(split, np.flatnonzero(~held_out))}
    if count:
        parts["val"] = SubSplit(split, np.flatnonzero(held_out))
    return parts, notes


def stratified_draw(strata: Labels, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which of N samples are held out: `fraction` of each stratum, at least one of each with two or more."""
    if not 0 < fraction < 1:
        raise UserError(f"validation fraction {fraction}; it lies between 0 and 1, 0.2 is usual")
    numbers = randomness.uniform(seed, "split", 0, np.arange(len(strata)), 1)[:, 0]
    order = np.lexsort((numbers, strata))
    _, starts, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    counts = np.minimum(np.maximum(1, np.rint(sizes * fraction)), sizes - 1)
    rank = np.arange(len(strata)) - np.repeat(starts, sizes)
    held_out = np.zeros(len(strata), bool)
    held_out[order[rank < np.repeat(counts, sizes)]] = True
    return held_out
