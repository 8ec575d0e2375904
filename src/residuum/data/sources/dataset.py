"""A data set: named splits under one class list."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from residuum.data.splits import JoinedSplit, Split
from residuum.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, eq=False)
class DataSet:
    """Splits ("train", "val", "test", those there are) whose labels index one class list.

    The class list is training's, or a model's where one was given. `notes` are sentences about what a reader
    should know: a split drawn, classes that one split lacks or that the list does not have. drawn: share and seed of
    the validation split, where it was drawn.
    """

    spec: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    multi_label: bool
    notes: tuple[str, ...] = ()
    drawn: tuple[float, int] | None = None

    @property
    def train(self) -> Split:
        """The training split. Raises UserError where there is none."""
        if "train" not in self.splits:
            raise UserError(f"{self.spec} has no training images, only {self._held()}; training needs a train split")
        return self.splits["train"]

    def monitored(self) -> tuple[str, Split]:
        """What training watches, with its name: val, else test. Raises UserError where there is neither."""
        for name in ("val", "test"):
            if name in self.splits:
                return name, self.splits[name]
        raise UserError(
            f"{self.spec} has only {self._held()}; training needs a val or test split to watch: add one, or name "
            "the data without splits (the train folder itself, a list without a split column) to have one drawn"
        )

    def held_out(self, name: str | None = None) -> tuple[str, Split]:
        """What an evaluation measures, with its name: test, else val, else the only one; or the one named.

        "all" is every image of every split. Raises UserError for a split that is not there.
        """
        if name is None:
            name = next(split for split in ("test", "val", "train") if split in self.splits)
        if name == "all":
            return name, JoinedSplit(tuple(self.splits.values()))
        if name not in self.splits:
            raise UserError(f"{self.spec} has no split {name!r}; it has {self._held()}, together: all")
        return name, self.splits[name]

    def fingerprint(self) -> str:
        """32 hex digits of the classes, the splits, and every image's name, label and size (arrays: content).

        The same on every machine and wherever the data lie.
        """
        digest = hashlib.blake2b(json.dumps(self.classes).encode(), digest_size=16)
        for split_name, split in sorted(self.splits.items()):
            digest.update(f"\n{split_name} {len(split)}\n".encode())
            digest.update(split.labels.astype("<i8" if split.labels.ndim == 1 else "u1").tobytes())
            for index, name in enumerate(split.names):
                digest.update(name.encode() + b"\0" + split.signature(index) + b"\n")
        return digest.hexdigest()

    def _held(self) -> str:
        return ", ".join(self.splits)


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorted as a reader would: "2" before "10"."""
    return sorted(names, key=lambda name: (_digits_as_numbers(name), name))


def _digits_as_numbers(name: str) -> list[str | tuple[int, str]]:
    # Splitting by a group alternates text and digits, so that like is always compared with like.
    parts = re.split(r"0*([0-9]+)", name)
    return [(len(part), part) if i % 2 else part for i, part in enumerate(parts)]
