"""The classification errors that papers print: they stand beside a measured one where all is the same, never otherwise.

Names of networks and of shortcut options are the catalogue's, those of protocols `Protocol.name`'s. Left out are
networks that the catalogue cannot name, among them two that share a name with another network here: the ResNet-50 of
Xie et al. 2017, and the bottleneck ResNet-164 of He et al. 2016 with its original units (`resnet164` has basic units).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from residuum.data.decoding import BadImage
from residuum.data.sources import DataSet
from residuum.data.splits import Split

IMAGENET, CIFAR_10, CIFAR_100 = "ImageNet val", "CIFAR-10 test", "CIFAR-100 test"

ONE_CROP, ONE_CROP_AT_320, SINGLE_VIEW = "1-crop 224 of 256", "1-crop 320", "1-crop 32"
TEN_CROPS = "10-crop 224 of 256"
FIVE_SCALES = "multi-scale 224,256,384,480,640"
MIRRORED = ", mirrored"


@dataclass(frozen=True)
class Published:
    """A printed error of a network on a test set.

    model, shortcut: the catalogue's name and the option ("A", "B", "C", "none") of the network that was measured; data:
    as `recognise` names it; errors in %, top5_error None where none is printed; note: what is printed beside the
    figure, or has to be known of it; source: the paper and where in it.
    """

    model: str
    shortcut: str
    data: str
    protocol: str
    top1_error: float
    top5_error: float | None
    note: str
    source: str


class _Row(NamedTuple):
    model: str
    shortcut: str
    top1_error: float
    top5_error: float | None = None
    note: str = ""


def _table(source: str, data: str, protocol: str, *rows: _Row) -> tuple[Published, ...]:
    return tuple(
        Published(row.model, row.shortcut, data, protocol, row.top1_error, row.top5_error, row.note, source)
        for row in rows
    )


_LEFT_OPEN = "whether mirrored views took part is left open"

PUBLISHED: tuple[Published, ...] = (
    *_table(
        "He et al. 2015, table 2",
        IMAGENET,
        TEN_CROPS,
        _Row("plain18", "none", 27.94),
        _Row("resnet18", "A", 27.88),
    ),
    *_table(
        "He et al. 2015, tables 2 and 3",
        IMAGENET,
        TEN_CROPS,
        _Row("plain34", "none", 28.54, 10.02),
        _Row("resnet34", "A", 25.03, 7.76),
    ),
    *_table(
        "He et al. 2015, table 3",
        IMAGENET,
        TEN_CROPS,
        _Row("resnet34", "B", 24.52, 7.46),
        _Row("resnet34", "C", 24.19, 7.40),
        _Row("resnet50", "B", 22.85, 6.71),
        _Row("resnet101", "B", 21.75, 6.05),
        _Row("resnet152", "B", 21.43, 5.71),
    ),
    *_table(
        "He et al. 2015, table 4",
        IMAGENET,
        FIVE_SCALES,
        _Row("resnet34", "B", 21.84, 5.71, _LEFT_OPEN),
        _Row("resnet34", "C", 21.53, 5.60, _LEFT_OPEN),
        _Row("resnet50", "B", 20.74, 5.25, _LEFT_OPEN),
        _Row("resnet101", "B", 19.87, 4.60, _LEFT_OPEN),
        _Row("resnet152", "B", 19.38, 4.49, _LEFT_OPEN),
    ),
    *_table(
        "He et al. 2015, released models, the authors' README",
        IMAGENET,
        ONE_CROP,
        _Row("resnet50", "B", 24.7, 7.8),
        _Row("resnet101", "B", 23.6, 7.1),
        _Row("resnet152", "B", 23.0, 6.7),
    ),
    *_table(
        "He et al. 2015, table 6",
        CIFAR_10,
        SINGLE_VIEW,
        _Row("resnet20", "A", 8.75),
        _Row("resnet32", "A", 7.51),
        _Row("resnet44", "A", 7.17),
        _Row("resnet56", "A", 6.97),
        _Row("resnet110", "A", 6.43, note="6.61±0.16 over five runs"),
        _Row("resnet1202", "A", 7.93),
    ),
    *_table(
        "He et al. 2016",
        CIFAR_10,
        SINGLE_VIEW,
        _Row("resnet110", "A", 6.61, note="median of 5"),
        _Row("preact_resnet110", "A", 6.37, note="median of 5"),
        _Row("preact_resnet164", "B", 5.46, note="median of 5"),
        _Row("preact_resnet1001", "B", 4.92, note="median of 5; 4.89±0.14"),
        _Row("preact_resnet1001", "B", 4.62, note="batch 64, median of 5; 4.69±0.20"),
    ),
    *_table(
        "He et al. 2016",
        CIFAR_100,
        SINGLE_VIEW,
        _Row("preact_resnet164", "B", 24.33),
        _Row("preact_resnet1001", "B", 22.71),
    ),
    *_table(
        "He et al. 2016",
        IMAGENET,
        ONE_CROP_AT_320,
        _Row("resnet152", "B", 21.3),
        _Row("preact_resnet152", "B", 21.1),
        _Row("preact_resnet200", "B", 20.7),
    ),
    *_table(
        "Xie et al. 2017",
        IMAGENET,
        ONE_CROP,
        _Row("resnext50_32x4d", "B", 22.2),
        _Row("resnext50_32x4d", "none", 26.1),
        _Row("resnext101_32x4d", "B", 21.2),
    ),
    *_table(
        "Xie et al. 2017",
        CIFAR_10,
        SINGLE_VIEW,
        _Row("resnext29_8x64d", "B", 3.65, note="mean of 10"),
        _Row("resnext29_16x64d", "B", 3.58, note="mean of 10"),
    ),
    *_table(
        "Xie et al. 2017",
        CIFAR_100,
        SINGLE_VIEW,
        _Row("resnext29_8x64d", "B", 17.77, note="mean of 10"),
        _Row("resnext29_16x64d", "B", 17.31, note="mean of 10"),
    ),
)

DEFAULT_SHORTCUTS = {
    **dict.fromkeys(("plain18", "plain34"), "none"),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "B"),
    **dict.fromkeys(("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"), "A"),
    **dict.fromkeys(("preact_resnet110",), "A"),
    **dict.fromkeys(("preact_resnet152", "preact_resnet164", "preact_resnet200", "preact_resnet1001"), "B"),
    **dict.fromkeys(("resnext50_32x4d", "resnext101_32x4d", "resnext29_8x64d", "resnext29_16x64d"), "B"),
}
"""The shortcut option that the catalogue builds each of these networks with where none is asked for."""


def published_for(architecture: str, shortcut: str | None, data: str | None, protocol: str) -> tuple[Published, ...]:
    """What is printed of this very network on these data by this protocol; often nothing.

    architecture, shortcut: as `create_model` takes them, None for the network's own shortcut; data: what `recognise`
    makes of the test set; protocol: as `Protocol.name` writes it.
    """
    option = shortcut or DEFAULT_SHORTCUTS.get(architecture)
    return tuple(
        row
        for row in PUBLISHED
        if (row.model, row.shortcut, row.data) == (architecture, option, data) and protocol in _protocols_of(row)
    )


def published_on(
    dataset: DataSet, split: str, networks: Sequence[tuple[str, str | None, str]]
) -> list[tuple[Published, ...]]:
    """What is printed of each of these (architecture, shortcut, protocol) on a split; nothing where it is no known set.

    Which set it is takes reading it, and is asked only where there is a figure to print.
    """
    sets = dict.fromkeys(row.data for row in PUBLISHED)
    if not any(published_for(*network[:2], data, network[2]) for network in networks for data in sets):
        return [() for _ in networks]
    known = recognise(dataset, split)
    return [published_for(architecture, shortcut, known, protocol) for architecture, shortcut, protocol in networks]


def _protocols_of(row: Published) -> tuple[str, ...]:
    return (FIVE_SCALES, FIVE_SCALES + MIRRORED) if row.protocol == FIVE_SCALES else (row.protocol,)


_CIFAR_10_CLASSES = frozenset(
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
)
_CIFAR_10_DIGEST = 0xCBD86F90C11D44F2
_SPELLINGS = {"plane": "airplane", "car": "automobile"}  # as PyTorch's tutorials have them
_WORDNET_ID = re.compile("n[0-9]{8}")
_IMAGENET_FILE = re.compile(r"(?:.*/)?ILSVRC2012_val_[0-9]{8}\.jpe?g", re.IGNORECASE)
_PROBES = 50


def recognise(dataset: DataSet, split: str) -> str | None:
    """Which known test set a split is: "CIFAR-10 test", "CIFAR-100 test", "ImageNet val"; None for any other.

    split: "train", "val", "test", or "all". CIFAR-10 is known by every pixel and label, wherever it lies; CIFAR-100 as
    the built-in set alone, whose files were checked when they were fetched; ImageNet by its classes, its files' names,
    how many they are, and that their sizes differ, as those of its altered copies do not.
    """
    if dataset.multi_label:
        return None
    images = dataset.held_out(split)[1]
    if split == "test" and dataset.spec == "cifar100":
        return CIFAR_100
    names = [_SPELLINGS.get(name, name) for name in dataset.classes]
    if split == "test" and len(images) == 10_000 and len(names) == 10 and set(names) == _CIFAR_10_CLASSES:
        return CIFAR_10 if _digest(images, names) == _CIFAR_10_DIGEST else None
    is_imagenet = len(images) == 50_000 and len(names) == 1_000 and all(map(_WORDNET_ID.fullmatch, names))
    return IMAGENET if is_imagenet and split in ("val", "test") and _has_imagenets_files(images) else None


def _digest(images: Split, names: Sequence[str]) -> int:
    """64 bits of every image's pixels and class, in whatever order; 0 where one cannot be read."""
    total = 0
    for index, label in enumerate(images.labels.tolist()):
        try:
            content = names[label].encode() + b"\0" + images.read(index, 3).tobytes()
        except BadImage:
            return 0
        total += int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return total % 2**64


def _has_imagenets_files(images: Split) -> bool:
    chosen = range(0, len(images), len(images) // _PROBES)
    if not all(_IMAGENET_FILE.fullmatch(images.names[index]) for index in chosen):
        return False
    try:
        return len({(facts.width, facts.height) for facts in map(images.probe, chosen)}) > 1
    except BadImage:
        return False
