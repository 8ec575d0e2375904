"""Making a pack of a data set, so that its images need not be decoded again and again."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from residuum.data.pack_writer import plan_split, write_split
from residuum.data.packed_split import Counts, PackedSplit, file_bytes
from residuum.data.packs import MANIFEST, Pack, file_name, holds_only_a_pack, manifest, open_pack
from residuum.data.sources import read_data
from residuum.data.sources.assembly import UNDIVIDED, Reading, assemble
from residuum.data.splits import Labels, Split
from residuum.data.workers import LoaderSettings, Progress
from residuum.errors import NO_ROOM, UserError, in_words
from residuum.files import whole_folder, write_json
from residuum.hardware import default_workers

Watch = Callable[[str], AbstractContextManager[Progress]]
"""What is read -> a function to call with (images read, of how many), for as long as that goes on."""


@dataclass(frozen=True, eq=False)
class Source:
    """What goes into a pack: the splits as they are, or were drawn, and their labels.

    labels: of each split, indices into `classes` and, in all but the first, on into `further_classes`.
    """

    spec: str
    fingerprint: str
    classes: tuple[str, ...]
    further_classes: tuple[str, ...]
    splits: dict[str, Split]
    labels: dict[str, Labels]
    notes: tuple[str, ...]


def open_source(spec: str, *, root: str | Path | None, val_fraction: float, split_seed: int) -> Source:
    """The data that `spec` names, as `open_data` opens them; classes that only later splits have keep their names.

    Raises UserError as `open_data`.
    """
    reading = read_data(spec, root)
    dataset = assemble(spec, reading, None, val_fraction, split_seed)
    further = _further_classes(dataset.classes, reading)
    splits = assemble(spec, reading, dataset.classes + further, val_fraction, split_seed).splits
    labels = {name: split.labels for name, split in splits.items()}
    first = next(iter(splits))
    labels[first] = dataset.splits[first].labels
    notes = list(reading.notes)
    if UNDIVIDED in reading.splits:
        notes.append(f"The data had no splits; val was drawn for the pack ({val_fraction:.0%}, seed {split_seed}).")
    return Source(spec, dataset.fingerprint(), dataset.classes, further, splits, labels, tuple(notes))


def _further_classes(classes: Sequence[str], reading: Reading) -> tuple[str, ...]:
    """Those that only later splits have; of two classes of one name the second is another one."""
    known = Counter(classes)
    further: list[str] = []
    for found in reading.splits.values():
        missing = Counter(found.classes) - known
        further += missing.elements()
        known += missing
    return tuple(further)


def write_pack(
    source: Source, out: Path, *, shorter_side: int | None = None, workers: int | None = None, watch: Watch
) -> Pack:
    """Decode every image once and write the pack `out`, whole or not at all; a pack that is there gives way.

    shorter_side: what that of larger images is reduced to, with anti-aliasing; workers: processes that decode. What
    gives no image keeps its place, as a name with a reason. Memory stays bounded by some MB, or some images, a
    worker. Raises UserError where `out` is taken by something else, the disk has too little room, or a worker dies.
    """
    place = out.expanduser().resolve()
    _refuse_taken(place)
    settings = LoaderSettings(workers=default_workers(torch.device("cpu")) if workers is None else workers)
    plans = {}
    for name, split in source.splits.items():
        with watch(f"the headers of {name} images") as progress:
            plans[name] = plan_split(split, source.labels[name], shorter_side, settings, progress)
    _refuse_little_room(place, [plan.counts() for plan in plans.values()])
    try:
        with whole_folder(place) as folder:
            splits = {}
            for name, plan in plans.items():
                with watch(f"{name} images") as progress:
                    splits[name] = write_split(folder / file_name(name), plan, settings, progress)
            write_json(folder / MANIFEST, manifest(_described(source, folder, shorter_side, splits)))
            open_pack(folder)  # what cannot be opened takes nobody's place
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(f"{out}: {in_words(error)}; free some space, or name a folder on another disk") from error
    return open_pack(place)


def _described(source: Source, folder: Path, shorter_side: int | None, splits: dict[str, PackedSplit]) -> Pack:
    notes = source.notes
    if shorter_side is not None:
        notes += (f"Larger images were reduced to a shorter side of {shorter_side} pixels when they were packed.",)
    classes = (source.classes, source.further_classes)
    return Pack(folder, source.spec, source.fingerprint, *classes, shorter_side, splits, notes)


def _refuse_taken(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not holds_only_a_pack(out))):
        raise UserError(f"{out} is there and is no pack, or holds more than one; name another folder, or remove it")


def _refuse_little_room(out: Path, counts: Sequence[Counts]) -> None:
    """Raise UserError where the disk cannot take what the headers promise."""
    place = next(folder for folder in out.parents if folder.is_dir())
    needed, free = sum(map(file_bytes, counts)), shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{out} would take {size_text(needed)}, and {size_text(free)} are free there; free some space, name a "
            "folder on another disk, or reduce the images (--shorter-side 256)"
        )


def size_text(size: int) -> str:
    """ "1.4 GiB", "37 MiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
