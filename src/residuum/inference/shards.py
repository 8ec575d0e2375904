"""One share of many files: disjoint, complete, and the same wherever and whenever it is asked for."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from residuum.errors import UserError, printable


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from 1. A file's name alone decides whose it is.

    So every file is of exactly one share, also where the processes do not find the same files, as in a folder that
    is being filled.
    """

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, paths: Iterable[Path]) -> Iterator[Path]:
        """The paths of this share, in their order."""
        return (path for path in paths if self.count == 1 or _number(path) % self.count == self.index - 1)

    def file(self, out: Path) -> Path:
        """Where this share is written: `results-2-of-8.csv` for `results.csv`, which stands for all of them."""
        if self.count == 1:
            return out
        index = str(self.index).zfill(len(str(self.count)))
        return out.with_name(f"{out.stem}-{index}-of-{self.count}{out.suffix}")


def _number(path: Path) -> int:
    return int.from_bytes(blake2b(os.fsencode(path), digest_size=8).digest(), "big")


def parse_shard(text: str) -> Shard:
    """ "2/8". Raises UserError for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text} is no share; write 1/8 to 8/8 for the eight shares of eight")
    return Shard(int(found[1]), int(found[2]))


def shard_from_environment() -> Shard | None:
    """The share of this process among those that torchrun started, by its RANK and WORLD_SIZE; None where it did not,
    or started this one alone.

    Not by `distributed`, which imports PyTorch. Raises UserError for values that torchrun does not set.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world is None:
        return None
    are_counts = all(re.fullmatch("[0-9]{1,9}", text) for text in (rank, world))
    if not are_counts or int(rank) >= int(world):
        got = printable(f"RANK={rank} WORLD_SIZE={world}", 60)
        raise UserError(f"the environment has {got}; ranks are 0 to WORLD_SIZE - 1: unset both, or start with torchrun")
    return Shard(int(rank) + 1, int(world)) if int(world) > 1 else None
