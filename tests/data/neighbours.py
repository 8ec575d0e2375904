"""What each of two processes on one machine sees of a set in memory; run by test_sharing.py.

python neighbours.py FOLDER, in torchrun's environment: writes FOLDER/seen-RANK.json, one entry a scene.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from image_bytes import encoded
from PIL import Image

import residuum.data.sharing as sharing
import residuum.data.storage as storage
from residuum.data.augmentations import Augmentation
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import ArraySplit, FileSplit, NumberedNames, PackedNames
from residuum.data.workers import LoaderSettings
from residuum.distributed import World, process_group

COUNT = 23
BAD = (2, 7, 21)  # in requests of 4, read by both processes
CROPS = Augmentation(random_resized_crop=(0.3, 1.0))
SETTINGS = LoaderSettings(seed=3)


@dataclass(frozen=True, eq=False)
class Failing(ArraySplit):
    """Cannot be read, and it is nobody's image that is to blame."""

    def read(self, index: int, channels: int) -> Any:
        raise RuntimeError("a mistake of our own")


def pixels(count: int = COUNT) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 12, 15, 3), dtype=np.uint8)


def array(kind: type[ArraySplit] = ArraySplit) -> ArraySplit:
    return kind(pixels(), np.arange(COUNT) % 3, NumberedNames("array", COUNT))


def files(folder: Path, sizes: Callable[[int], tuple[int, int]] = lambda index: (12, 15)) -> FileSplit:
    folder.mkdir(exist_ok=True)
    names = [f"{index:02}.png" for index in range(COUNT)]
    for index, name in enumerate(names):
        image = Image.fromarray(pixels()[index][: sizes(index)[0], : sizes(index)[1]])
        (folder / name).write_bytes(b"no image" if index in BAD else encoded(image, "PNG"))
    return FileSplit(folder, PackedNames(names), np.zeros(COUNT, np.int64))


def opened(split: Any, augmentation: Augmentation, world: World, **changes: Any) -> dict[str, Any]:
    """What became of `open_images`: its error, or what its images are."""
    steps: list[tuple[int, int]] = []
    settings = replace(SETTINGS, world=world, **changes)
    try:
        images = storage.open_images(
            split, Preprocessing(3, 8), augmentation, settings, lambda *step: steps.append(step)
        )
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}
    requests = [storage.Request(epoch, np.arange(COUNT)) for epoch in (0, 1)]
    content = b"".join(views.images.numpy().tobytes() for views in images.read(requests))
    return {
        "kind": images.kind,
        "content": hashlib.sha256(content).hexdigest(),
        "bad": {str(index): str(images.bad[index]) for index in sorted(images.bad)},
        "progress": steps[-1:],
    }


def scenes(folder: Path, world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "centre", opened(files(folder), Augmentation(), world)
    yield "crops", opened(files(folder), CROPS, world)
    yield "workers", opened(files(folder), CROPS, world, workers=1)
    yield "strict", opened(files(folder), CROPS, world, strict=True)
    mixed = files(folder / "mixed", lambda index: (12 - (index == 22), 15))
    yield "mixed", opened(mixed, CROPS, world)
    yield "mixed in memory", opened(mixed, CROPS, world, kind="memory")
    with patch.object(storage, "_PROBES", 1):
        yield "mixed and not probed", opened(mixed, CROPS, world)
    yield "one fails", opened(array(Failing if world.rank else ArraySplit), CROPS, world)
    with patch.object(storage, "_free_bytes", lambda device: 0 if world.rank else 2**30):
        yield "one has no room", opened(array(), CROPS, world)
        yield "one has no room at all", opened(array(), CROPS, world, kind="memory")
    with patch.object(sharing, "_create", lambda size, stack: ("/proc/0/fd/0", 0)):
        yield "unreachable", opened(array(), CROPS, world)
        yield "unreachable in memory", opened(array(), CROPS, world, kind="memory")


def one_memory(world: World) -> dict[str, Any]:
    """Whether a byte that the first process writes is read by the second; where the memory is mapped from."""
    images = storage.open_images(array(), Preprocessing(3, 8), CROPS, replace(SETTINGS, world=world))
    assert isinstance(images, storage.MemoryImages)
    before = int(images._images[5, 0, 0, 0])
    world.barrier()
    if world.is_main:
        images._images[5, 0, 0, 0] = 255 - before
    world.barrier()
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:residuum" in line]
    return {"before": before, "after": int(images._images[5, 0, 0, 0]), "mapped": len(mapped)}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")) as world, patch.object(storage, "_READ_AT_ONCE", 4):
        own = folder / str(world.rank)
        own.mkdir()
        # Each has its own copy of the files: the same names, and no race between the writers.
        seen = dict(scenes(own, world)) | {"one memory": one_memory(world)}
        (folder / f"seen-{world.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
