"""Packs: a folder of `pack.json` and a file of decoded images for each split, made by `residuum pack`.

A pack may come from a stranger: what it says of itself is checked before a pixel is read.
"""

from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from residuum.data.packed_split import Counts, PackedSplit, damaged, open_split
from residuum.errors import UserError, counted, printable
from residuum.files import read_json

FORMAT = 1
MANIFEST = "pack.json"
SPLITS = ("train", "val", "test")

_MOST_NAMED = 100  # of the images left out, in pack.json


@dataclass(frozen=True, eq=False)
class Pack:
    """An opened pack.

    spec, fingerprint: of the data that were packed; classes: those of its first split, train where there is one;
    further_classes: those that only other splits have, whose labels go on counting from the others; shorter_side:
    what larger images were reduced to, None where all are as they were.
    """

    folder: Path
    spec: str
    fingerprint: str
    classes: tuple[str, ...]
    further_classes: tuple[str, ...]
    shorter_side: int | None
    splits: dict[str, PackedSplit]
    notes: tuple[str, ...]

    def classes_of(self, split: str) -> tuple[str, ...]:
        """What the labels of a split index."""
        return _classes_of(split, [*self.splits], self.classes, self.further_classes)


def _classes_of(split: str, splits: list[str], classes: tuple[str, ...], further: tuple[str, ...]) -> tuple[str, ...]:
    first = next(name for name in SPLITS if name in splits)
    return classes if split == first else classes + further


def manifest(pack: Pack) -> dict[str, Any]:
    """What `pack.json` says; of the images left out the first hundred are named."""
    return {
        "residuum_pack": FORMAT,
        "spec": pack.spec,
        "fingerprint": pack.fingerprint,
        "shorter_side": pack.shorter_side,
        "notes": list(pack.notes),
        "splits": {name: _entry(split) for name, split in pack.splits.items()},
        "classes": list(pack.classes),
        "further_classes": list(pack.further_classes),
    }


def _entry(split: PackedSplit) -> dict[str, Any]:
    return {**asdict(split.counts), "modes": list(split.modes), "bad_images": bad_images(split)}


def bad_images(split: PackedSplit) -> list[tuple[str, str]]:
    """Name and reason of the images that were left out, the first hundred."""
    return [(bad.name, bad.reason) for bad in split.left_out(_MOST_NAMED)]


def is_pack(folder: Path) -> bool:
    """Whether a folder says that it is a pack; whether it is sound, opening it will tell."""
    return (folder / MANIFEST).is_file() and any((folder / file_name(split)).exists() for split in SPLITS)


def file_name(split: str) -> str:
    """The file of a split, in the pack's folder."""
    return f"{split}.safetensors"


def holds_only_a_pack(folder: Path) -> bool:
    """Whether a pack, sound or not, is all that would be lost with the folder."""
    names = {entry.name for entry in folder.iterdir()}
    if not is_pack(folder) or not names <= {MANIFEST, *map(file_name, SPLITS)}:
        return False
    try:
        content = read_json(folder / MANIFEST)
    except UserError:
        return False
    return isinstance(content, dict) and "residuum_pack" in content


def open_pack(folder: Path) -> Pack:
    """The pack in a folder, its index checked, its pixels neither read nor checked.

    Raises UserError where it is damaged, not what it says, or of a newer format.
    """
    place = folder / MANIFEST
    content = read_json(place)
    version = content.get("residuum_pack") if isinstance(content, dict) else None
    if not _is_count(version):
        raise UserError(
            f"{place} does not describe a pack; name the folder of one, or make one: residuum pack DATA OUT"
        )
    if version != FORMAT:
        raise UserError(f"{folder} is a pack of format {version}, and this residuum reads {FORMAT}; pack the data anew")
    try:
        return _open(folder, content)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise damaged(place, printable(reason)) from None


def _open(folder: Path, content: dict[str, Any]) -> Pack:
    classes, further = _texts(content, "classes"), _texts(content, "further_classes")
    entries, shorter_side = content["splits"], content["shorter_side"]
    if not isinstance(entries, dict) or not entries or not entries.keys() <= set(SPLITS):
        raise ValueError(f"splits are not of {', '.join(SPLITS)}")
    if not (shorter_side is None or _is_count(shorter_side)):
        raise ValueError("shorter_side is not a number of pixels")
    splits = {
        name: _open_split(folder / file_name(name), entry, len(_classes_of(name, [*entries], classes, further)))
        for name, entry in entries.items()
    }
    spec, fingerprint = (_text(content[key], key) for key in ("spec", "fingerprint"))
    notes = tuple(printable(note, longest=None) for note in _texts(content, "notes"))
    return Pack(folder, spec, fingerprint, classes, further, shorter_side, splits, notes)


def _open_split(file: Path, entry: dict[str, Any], classes: int) -> PackedSplit:
    numbers = {field.name: entry[field.name] for field in fields_of(Counts)}
    wrong = [name for name, value in numbers.items() if not _is_count(value)]
    if wrong:
        raise ValueError(f"{wrong[0]} is no count")
    counts = Counts(**numbers)
    if counts.channels not in (1, 3) or counts.label_columns not in (0, classes):
        raise ValueError(f"{counted(counts.channels, 'channel')}, {counted(counts.label_columns, 'label column')}")
    return open_split(file, counts, _texts(entry, "modes"), classes)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _texts(content: dict[str, Any], key: str) -> tuple[str, ...]:
    if not isinstance(content[key], list):
        raise ValueError(f"{key} is no list")
    return tuple(_text(item, key) for item in content[key])


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value
