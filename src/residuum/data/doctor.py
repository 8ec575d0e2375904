"""The doctor of a data set: reads every image once and says what is worth fixing before training on it."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from residuum.data.decoding import GREY_MODES, BadImage
from residuum.data.sources.dataset import DataSet
from residuum.data.splits import Split
from residuum.data.workers import LoaderSettings, Pool
from residuum.errors import counted, listed
from residuum.hardware import default_workers
from residuum.records import Cell, Table

CHUNK = 64  # images a worker process reads at a time
MOST_ROWS = 100  # of a table that names files
NOTABLE_IMBALANCE = 5.0


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    counts: images by class and split; sizes and modes: how many images have each; channels: mean and standard
    deviation of the training pixels in [0, 1], at the images' own sizes; bad_files and duplicates: named, at
    most 100 of each, with the full numbers beside them; imbalance: the largest training class over the
    smallest; verdict: a sentence for each thing worth fixing, or one that there is none.
    """

    spec: str
    fingerprint: str
    images: int
    counts: Table
    sizes: Table
    modes: Table
    channels: Table
    bad: int
    bad_files: Table
    duplicate_groups: int
    duplicates: Table
    imbalance: float | None
    notes: tuple[str, ...]
    verdict: tuple[str, ...]


@dataclass
class _Scan:
    """Facts added up over images, in whole numbers, so that the grouping into chunks changes nothing."""

    indices: "array[int]" = field(default_factory=lambda: array("q"))  # of the readable images
    digests: bytearray = field(default_factory=bytearray)  # 16 bytes each
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    bad: list[BadImage] = field(default_factory=list)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))

    def add(self, other: "_Scan") -> None:
        self.indices += other.indices
        self.digests += other.digests
        self.sizes += other.sizes
        self.modes += other.modes
        self.bad += other.bad
        self.histogram += other.histogram


def check_data(dataset: DataSet) -> DataReport:
    """Decode every image of every split, on all cores and in bounded memory, and report."""
    scans = {name: _scan(split) for name, split in dataset.splits.items()}
    totals = _Scan()
    for scan in scans.values():
        totals.add(scan)
    counts = {name: _class_counts(split.labels, len(dataset.classes)) for name, split in dataset.splits.items()}
    reference = "train" if "train" in scans else next(iter(scans))
    groups = _duplicate_groups(dataset, scans)
    imbalance, imbalance_sentence = _imbalance(dataset.classes, counts[reference])
    findings = [*_bad_sentence(len(totals.bad)), *_duplicate_sentences(groups), *imbalance_sentence]
    return DataReport(
        spec=dataset.spec,
        fingerprint=dataset.fingerprint(),
        images=sum(len(split) for split in dataset.splits.values()),
        counts=_counts_table(dataset, counts),
        sizes=_sizes_table(totals.sizes),
        modes=Table("Modes", ("mode", "images"), tuple(totals.modes.most_common())),
        channels=_channels_table(reference, scans[reference]),
        bad=len(totals.bad),
        bad_files=_bad_table(scans),
        duplicate_groups=len(groups),
        duplicates=_duplicates_table(dataset, groups),
        imbalance=imbalance,
        notes=dataset.notes,
        verdict=tuple(findings) or ("Nothing to fix was found.",),
    )


class _Scanner(Dataset[_Scan]):
    """Scans the images that it is asked for; what a worker process holds."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, indices: range) -> _Scan:
        scan = _Scan()
        for index in indices:
            try:
                _look_at(self._split, index, scan)
            except BadImage as bad:
                scan.bad.append(bad)
        return scan


def _look_at(split: Split, index: int, scan: _Scan) -> None:
    pixels = split.read(index, 3)
    digest = hashlib.blake2b(split.content(index), digest_size=16).digest()
    facts = split.probe(index)
    scan.indices.append(index)
    scan.digests += digest
    scan.sizes[facts.width, facts.height] += 1
    scan.modes[facts.mode] += 1
    scan.histogram += np.reshape(Image.fromarray(pixels).histogram(), (3, 256))


def _scan(split: Split) -> _Scan:
    every = range(len(split))
    chunks = [every[start : start + CHUNK] for start in every[::CHUNK]]
    workers = default_workers(torch.device("cpu")) if len(chunks) > 4 else 0
    pool: Pool[range, _Scan] = Pool(_Scanner(split), LoaderSettings(workers=workers))
    total = _Scan()
    for scan in pool.read(chunks):
        total.add(scan)
    return total


def _class_counts(labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels[labels >= 0], minlength=classes)


def _counts_table(dataset: DataSet, counts: dict[str, NDArray[np.int64]]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, *(int(count[i]) for count in counts.values())) for i, name in enumerate(dataset.classes)
    ]
    if not dataset.multi_label:
        unknown = [int((split.labels < 0).sum()) for split in dataset.splits.values()]
        rows += [("(not in the class list)", *unknown)] if any(unknown) else []
    rows.append(("all", *(len(split) for split in dataset.splits.values())))
    return Table("Images", ("class", *counts), tuple(rows))


def _sizes_table(sizes: Counter[tuple[int, int]]) -> Table:
    shown = tuple((f"{width}x{height}", images) for (width, height), images in sizes.most_common(10))
    notes: tuple[str, ...] = ()
    if len(sizes) > 1:
        notes = (f"{len(sizes)} sizes; {_spread('width', sizes, 0)}; {_spread('height', sizes, 1)}.",)
    return Table("Sizes (width x height)", ("size", "images"), shown, notes)


def _spread(name: str, sizes: Counter[tuple[int, int]], axis: int) -> str:
    values = np.repeat([size[axis] for size in sizes], list(sizes.values()))
    return f"{name} {values.min()} to {values.max()} pixels, median {int(np.median(values))}"


def _channels_table(reference: str, scan: _Scan) -> Table:
    """Mean and standard deviation; of one channel where every image is grey."""
    grey = scan.modes.keys() <= GREY_MODES
    levels = np.arange(256) / 255
    rows: list[tuple[Cell, ...]] = []
    for name, histogram in zip(("grey",) if grey else ("red", "green", "blue"), scan.histogram, strict=False):
        pixels = max(1, int(histogram.sum()))
        mean = float(histogram @ levels / pixels)
        rows.append((name, mean, float(histogram @ (levels - mean) ** 2 / pixels) ** 0.5))
    return Table(f"Pixels of {reference}, in [0, 1]", ("channel", "mean", "std"), tuple(rows))


def _bad_table(scans: dict[str, _Scan]) -> Table:
    rows = [(split, bad.name, bad.reason) for split, scan in scans.items() for bad in scan.bad]
    return _cut_table("Files that cannot be read", ("split", "file", "reason"), rows)


@dataclass(frozen=True)
class _Group:
    """Identical images: (split, index) of each."""

    members: tuple[tuple[str, int], ...]
    conflicting: bool

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split for split, _ in self.members))


def _duplicate_groups(dataset: DataSet, scans: dict[str, _Scan]) -> list[_Group]:
    """Groups of images of the same bytes: those with differing labels first, then those in several splits."""
    names = list(scans)
    owners = np.repeat(np.arange(len(names)), [len(scan.indices) for scan in scans.values()])
    indices = np.concatenate([np.array(scan.indices, np.int64) for scan in scans.values()])
    digests = np.frombuffer(b"".join(scan.digests for scan in scans.values()), "S16")
    _, group_of, sizes = np.unique(digests, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[group_of] > 1)
    by_group = repeated[np.argsort(group_of[repeated], kind="stable")]
    groups = []
    for places in np.split(by_group, np.cumsum(sizes[sizes > 1])[:-1]) if len(by_group) else []:
        members = tuple((names[owners[place]], int(indices[place])) for place in places)
        labels = {dataset.splits[split].labels[index].tobytes() for split, index in members}
        groups.append(_Group(members, conflicting=len(labels) > 1))
    return sorted(groups, key=lambda group: (not group.conflicting, -len(group.splits), group.members))


def _duplicates_table(dataset: DataSet, groups: Sequence[_Group]) -> Table:
    rows = []
    for group in groups:
        classes = dict.fromkeys(_class_name(dataset, split, index) for split, index in group.members)
        files = [f"{split}: {dataset.splits[split].names[index]}" for split, index in group.members]
        rows.append((len(files), ", ".join(group.splits), " or ".join(classes), listed(files)))
    return _cut_table("Exact duplicates", ("images", "splits", "class", "files"), rows)


def _class_name(dataset: DataSet, split: str, index: int) -> str:
    label = dataset.splits[split].labels[index]
    if dataset.multi_label:
        return "|".join(dataset.classes[i] for i in np.flatnonzero(label))
    return dataset.classes[label] if label >= 0 else "(not in the class list)"


def _duplicate_sentences(groups: Sequence[_Group]) -> Iterator[str]:
    conflicting = sum(group.conflicting for group in groups)
    across = sum(len(group.splits) > 1 for group in groups)
    surplus = sum(len(group.members) - 1 for group in groups if len(group.splits) == 1)
    if conflicting:
        yield f"The same under different labels: {counted(conflicting, 'image')}; decide which is right."
    if across:
        yield f"In more than one split: {counted(across, 'image')}; accuracy there is flattered."
    if surplus:
        yield f"Repeating another of the same split: {counted(surplus, 'image')}; they weigh twice."


def _bad_sentence(bad: int) -> Iterator[str]:
    if bad:
        yield f"Unreadable: {counted(bad, 'file')}; left out of training, counted as errors in evaluation."


def _imbalance(classes: Sequence[str], counts: NDArray[np.int64]) -> tuple[float | None, list[str]]:
    """The largest class over the smallest, of those that have images; and a sentence if that is much."""
    present = np.flatnonzero(counts)
    if not len(present):
        return None, []
    large, small = present[counts[present].argmax()], present[counts[present].argmin()]
    ratio = float(counts[large] / counts[small])
    if ratio < NOTABLE_IMBALANCE:
        return ratio, []
    return ratio, [
        f"The largest class, {classes[large]} ({counts[large]} images), is {ratio:.1f} times the smallest, "
        f"{classes[small]} ({counts[small]}): look at the accuracy of each class, or weigh them."
    ]


def _cut_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]]) -> Table:
    more = len(rows) - MOST_ROWS
    return Table(title, columns, tuple(rows[:MOST_ROWS]), (f"And {more} more.",) if more > 0 else ())
