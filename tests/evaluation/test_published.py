"""Every printed figure is the papers', and stands beside a measurement of nothing else."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from residuum.data.decoding import ImageFacts
from residuum.data.sources import DataSet, open_data
from residuum.evaluation import published
from residuum.evaluation.published import (
    CIFAR_10,
    CIFAR_100,
    DEFAULT_SHORTCUTS,
    FIVE_SCALES,
    IMAGENET,
    ONE_CROP,
    ONE_CROP_AT_320,
    PUBLISHED,
    SINGLE_VIEW,
    TEN_CROPS,
    Published,
    published_for,
    published_on,
    recognise,
)
from residuum.models.catalogue import CATALOGUE, create_model
from residuum.models.shortcuts import SHORTCUTS
from residuum.models.trunk import ResNet

PAGE = Path(__file__).parents[3] / "shared" / "PAPER.md"
N = r"([\d.]+)"
BOTH = r"([\d.]+)/([\d.]+)"
ANY = r"[\d.]+"

# The heading under which the page prints a figure, how it prints it, and of what it is.
PRINTED = [
    ("He15 Table 2", rf"\| 18 \| {N} \|", "plain18", "none", IMAGENET, TEN_CROPS),
    ("He15 Table 2", rf"\| 18 \| {ANY} \| {N} \|", "resnet18", "A", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf"plain-34 {BOTH}", "plain34", "none", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf"ResNet-34 A {BOTH},", "resnet34", "A", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf"ResNet-34 A {ANY}/{ANY}, B {BOTH},", "resnet34", "B", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf" C {BOTH} · ResNet-50", "resnet34", "C", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf"· ResNet-50 {BOTH}", "resnet50", "B", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf"· 101 {BOTH}", "resnet101", "B", IMAGENET, TEN_CROPS),
    ("He15 Table 3", rf"· 152 {BOTH}", "resnet152", "B", IMAGENET, TEN_CROPS),
    ("He15 Table 4", rf"ResNet-34 B {BOTH},", "resnet34", "B", IMAGENET, FIVE_SCALES),
    ("He15 Table 4", rf"ResNet-34 B {ANY}/{ANY}, C {BOTH} ·", "resnet34", "C", IMAGENET, FIVE_SCALES),
    ("He15 Table 4", rf"· 50 {BOTH}", "resnet50", "B", IMAGENET, FIVE_SCALES),
    ("He15 Table 4", rf"· 101 {BOTH}", "resnet101", "B", IMAGENET, FIVE_SCALES),
    ("He15 Table 4", rf"· 152 {BOTH}", "resnet152", "B", IMAGENET, FIVE_SCALES),
    ("Released ImageNet models, 1-crop", rf"ResNet-50 {BOTH}", "resnet50", "B", IMAGENET, ONE_CROP),
    ("Released ImageNet models, 1-crop", rf"· 101 {BOTH}", "resnet101", "B", IMAGENET, ONE_CROP),
    ("Released ImageNet models, 1-crop", rf"· 152 {BOTH}", "resnet152", "B", IMAGENET, ONE_CROP),
    *(
        ("Table 6, test error", rf"\| error \|{' [^|]+ [|]' * before} {N} ", f"resnet{n}", "A", CIFAR_10, SINGLE_VIEW)
        for before, n in enumerate((20, 32, 44, 56, 110, 1202))
    ),
    ("He16", rf"identity {N};", "resnet110", "A", CIFAR_10, SINGLE_VIEW),
    ("He16", rf"full pre-activation {N}/", "preact_resnet110", "A", CIFAR_10, SINGLE_VIEW),
    ("He16", rf"full pre-activation {ANY}/{N}\. ", "preact_resnet164", "B", CIFAR_10, SINGLE_VIEW),
    ("He16", rf"ResNet-1001 {ANY} -> {N} \(", "preact_resnet1001", "B", CIFAR_10, SINGLE_VIEW),
    ("He16", rf"batch 64 {N}, ", "preact_resnet1001", "B", CIFAR_10, SINGLE_VIEW),
    ("He16", rf"CIFAR-100: 164 {ANY} -> {N},", "preact_resnet164", "B", CIFAR_100, SINGLE_VIEW),
    ("He16", rf", 1001 {ANY} -> {N}\. ", "preact_resnet1001", "B", CIFAR_100, SINGLE_VIEW),
    ("He16", rf"ImageNet at 320: 152 {N} ->", "resnet152", "B", IMAGENET, ONE_CROP_AT_320),
    ("He16", rf"ImageNet at 320: 152 {ANY} -> {N},", "preact_resnet152", "B", IMAGENET, ONE_CROP_AT_320),
    ("He16", rf", 200 {ANY} -> {N}\.", "preact_resnet200", "B", IMAGENET, ONE_CROP_AT_320),
    ("Xie17", rf"50 layers: .* 32x4d {N}; 101 layers", "resnext50_32x4d", "B", IMAGENET, ONE_CROP),
    ("Xie17", rf"ResNeXt-50 {ANY} -> {N}\. ", "resnext50_32x4d", "none", IMAGENET, ONE_CROP),
    ("Xie17", rf"101 layers, same order: {ANY}/{ANY}/{ANY}/{ANY}/{N}\. ", "resnext101_32x4d", "B", IMAGENET, ONE_CROP),
    ("Xie17", rf"29 layers 8x64d {N}/", "resnext29_8x64d", "B", CIFAR_10, SINGLE_VIEW),
    ("Xie17", rf"29 layers 8x64d {ANY}/{N},", "resnext29_8x64d", "B", CIFAR_100, SINGLE_VIEW),
    ("Xie17", rf" 16x64d {N}/", "resnext29_16x64d", "B", CIFAR_10, SINGLE_VIEW),
    ("Xie17", rf" 16x64d {ANY}/{N}\. ", "resnext29_16x64d", "B", CIFAR_100, SINGLE_VIEW),
]
HEADING_OF = {
    "He et al. 2015, table 2": "He15 Table 2",
    "He et al. 2015, tables 2 and 3": "He15 Table 3",
    "He et al. 2015, table 3": "He15 Table 3",
    "He et al. 2015, table 4": "He15 Table 4",
    "He et al. 2015, released models, the authors' README": "Released ImageNet models, 1-crop",
    "He et al. 2015, table 6": "Table 6, test error",
    "He et al. 2016": "He16",
    "Xie et al. 2017": "Xie17",
}
CIFAR_10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WORDNET_IDS = tuple(f"n{number:08}" for number in range(1_440_764, 1_441_764))
SMALL = (32, 32)


@pytest.fixture(scope="module")
def page() -> dict[str, str]:
    """Each section of the page of facts by its heading, in one line that ends in a space."""
    if not PAGE.exists():
        pytest.skip("the page of facts is not beside this checkout")
    sections = re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: f"{' '.join(text.split())} " for title, _, text in (part.partition("\n") for part in sections)}


def section(page: dict[str, str], heading: str) -> str:
    (text,) = [text for title, text in page.items() if title.startswith(heading)]
    return text


def figures(row: Published) -> tuple[str, float, float | None]:
    about = (row.model, row.shortcut, row.data, row.protocol, HEADING_OF[row.source])
    return " ".join(about), row.top1_error, row.top5_error


def test_the_rows_are_those_of_the_page_of_facts_none_more_and_none_less(page: dict[str, str]) -> None:
    printed = []
    for heading, pattern, *about in PRINTED:
        (found,) = re.finditer(pattern, section(page, heading))
        top5 = float(found[2]) if found.re.groups == 2 else None
        printed.append((" ".join([*about, heading]), float(found[1]), top5))
    assert Counter(map(figures, PUBLISHED)) == Counter(printed)


def test_what_tables_2_and_3_both_print_is_the_same(page: dict[str, str]) -> None:
    (found,) = re.finditer(rf"\| 34 \| {N} \| {N} \|", section(page, "He15 Table 2"))
    both = [row.top1_error for row in PUBLISHED if row.source == "He et al. 2015, tables 2 and 3"]
    assert both == [float(found[1]), float(found[2])]


def test_the_columns_of_table_6_are_in_the_order_taken(page: dict[str, str]) -> None:
    assert "| ResNet | 20 | 32 | 44 | 56 | 110 | 1202 |" in section(page, "Table 6, test error")


def test_the_figures_in_the_notes_are_printed_there_too(page: dict[str, str]) -> None:
    for row in PUBLISHED:
        text = section(page, HEADING_OF[row.source])
        if row.source == "He et al. 2016":  # whose heading has the number of runs
            text += next(title for title in page if title.startswith("He16"))
        for figure in re.findall(r"[\d.]+(?:±[\d.]+)?", row.note):
            assert figure in text, row


@pytest.mark.parametrize("name", DEFAULT_SHORTCUTS)
def test_each_network_is_in_the_catalogue_and_has_the_shortcut_it_is_said_to_have(name: str) -> None:
    entry = CATALOGUE[name]
    with torch.device("meta"):
        own = create_model(name)
        assert isinstance(own, ResNet)
        if entry.has_shortcuts:
            asked = create_model(name, shortcut=DEFAULT_SHORTCUTS[name])
        else:
            asked = create_model(name.replace("plain", "resnet"), shortcut=DEFAULT_SHORTCUTS[name])
    assert isinstance(asked, ResNet)
    assert [type(unit.downsample) for unit in own.units()] == [type(unit.downsample) for unit in asked.units()]


def test_the_rows_are_of_those_networks_and_of_options_and_data_they_are_made_for() -> None:
    assert {row.model for row in PUBLISHED} == set(DEFAULT_SHORTCUTS)
    for row in PUBLISHED:
        entry = CATALOGUE[row.model]
        assert row.shortcut in SHORTCUTS
        assert entry.has_shortcuts or row.shortcut == DEFAULT_SHORTCUTS[row.model]
        assert (entry.task.input_size == (3, 224, 224)) == (row.data == IMAGENET)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.model} {row.protocol}")
def test_a_row_is_found_by_its_own_name_shortcut_data_and_protocol(row: Published) -> None:
    assert row in published_for(row.model, row.shortcut, row.data, row.protocol)
    is_default = row.shortcut == DEFAULT_SHORTCUTS[row.model]
    assert (row in published_for(row.model, None, row.data, row.protocol)) == is_default


def test_a_network_has_the_figures_of_every_paper_that_measured_it() -> None:
    errors = [row.top1_error for row in published_for("resnet110", None, CIFAR_10, "1-crop 32")]
    assert errors == [6.43, 6.61]


def test_five_scales_match_with_mirrored_views_and_without_as_the_note_says() -> None:
    plain = published_for("resnet50", None, IMAGENET, "multi-scale 224,256,384,480,640")
    mirrored = published_for("resnet50", None, IMAGENET, "multi-scale 224,256,384,480,640, mirrored")
    assert plain == mirrored
    assert [(row.top1_error, row.top5_error) for row in plain] == [(20.74, 5.25)]
    assert "mirrored" in plain[0].note


@pytest.mark.parametrize(
    ("architecture", "shortcut", "data", "protocol"),
    [
        ("resnet50_v1_5", None, IMAGENET, ONE_CROP),  # the stride sits in the 3x3
        ("resnet50_v1_5", None, IMAGENET, TEN_CROPS),
        ("torchvision/resnet50", None, IMAGENET, ONE_CROP),
        ("timm/resnet50", None, IMAGENET, TEN_CROPS),
        ("preact_resnet50", None, IMAGENET, TEN_CROPS),
        ("resnet50", "C", IMAGENET, TEN_CROPS),
        ("resnet50", "none", IMAGENET, TEN_CROPS),
        ("resnet50", "gated", IMAGENET, TEN_CROPS),
        ("resnet18", None, IMAGENET, TEN_CROPS),  # the paper's has option A
        ("resnet34", "none", IMAGENET, FIVE_SCALES),
        ("resnet34", None, IMAGENET, ONE_CROP),
        ("resnet50", None, IMAGENET, "1-crop 224 of 256, mirrored"),
        ("resnet50", None, IMAGENET, "1-crop 256"),
        ("resnet50", None, IMAGENET, "1-crop"),
        ("resnet50", None, IMAGENET, "10-crop 224 of 224"),
        ("resnet50", None, IMAGENET, "10-crop 224 of 256, mirrored"),
        ("resnet50", None, IMAGENET, "multi-scale 224,256"),
        ("resnet50", None, IMAGENET, "multi-scale 224,256,384,480,640, logits averaged"),
        ("resnet50", None, IMAGENET, "ensemble of 2, 10-crop 224 of 256"),
        ("resnet50", None, IMAGENET, ONE_CROP_AT_320),
        ("resnet50", None, None, TEN_CROPS),
        ("resnet50", None, CIFAR_10, TEN_CROPS),
        ("resnet20", "B", CIFAR_10, SINGLE_VIEW),
        ("resnet20", None, CIFAR_100, SINGLE_VIEW),
        ("resnet20", None, None, SINGLE_VIEW),
        ("resnet20", None, CIFAR_10, "1-crop 32, mirrored"),
        ("resnet20", None, CIFAR_10, "1-crop 64"),
        ("plain20", None, CIFAR_10, SINGLE_VIEW),  # of which the papers print no figure
        ("resnet164", None, CIFAR_10, SINGLE_VIEW),  # basic units, where He et al. 2016 have bottlenecks
        ("resnet200", None, IMAGENET, ONE_CROP_AT_320),  # of the CIFAR family
        ("resnet26", None, CIFAR_10, SINGLE_VIEW),
        ("preact_resnet164", "A", CIFAR_10, SINGLE_VIEW),
        ("resnext101_64x4d", None, IMAGENET, ONE_CROP),
        ("no_such_network", None, IMAGENET, ONE_CROP),
    ],
)
def test_what_is_nearly_the_same_has_no_published_figure(
    architecture: str, shortcut: str | None, data: str | None, protocol: str
) -> None:
    assert published_for(architecture, shortcut, data, protocol) == ()


class Few:
    """Some images in the place of many: what `recognise` asks of a split."""

    def __init__(self, labels: np.ndarray, names: Callable[[int], str], sizes: Sequence[tuple[int, int]]) -> None:
        self.labels, self._name, self._sizes = labels, names, sizes
        self.names = self

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> str:
        return self._name(index)

    def probe(self, index: int) -> ImageFacts:
        height, width = self._sizes[index // 1000 % len(self._sizes)]
        return ImageFacts(width, height, "RGB")

    def read(self, index: int, channels: int) -> np.ndarray:
        return np.full((32, 32, channels), index % 251, np.uint8)


def like_cifar_10(order: np.ndarray, classes: Sequence[str] = CIFAR_10_NAMES, split: str = "test") -> DataSet:
    """As many images of the same classes, in some order of images and of classes."""
    canonical = [{"plane": "airplane", "car": "automobile"}.get(name, name) for name in classes]
    place = [canonical.index(name) for name in CIFAR_10_NAMES]
    labels = np.array(place)[order % 10]

    class Ordered(Few):
        def read(self, index: int, channels: int) -> np.ndarray:
            return super().read(int(order[index]), channels)

    images = Ordered(labels, "{}.png".format, [(32, 32)])
    return DataSet("cifar", tuple(classes), {split: images}, multi_label=False)


def test_cifar_10_is_known_by_its_pixels_and_labels_in_any_order_and_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    order = np.arange(10_000)
    assert recognise(like_cifar_10(order), "test") is None  # the very classes and number, other pixels
    digest = published._digest(like_cifar_10(order).splits["test"], CIFAR_10_NAMES)
    monkeypatch.setattr(published, "_CIFAR_10_DIGEST", digest)
    shuffled = np.random.default_rng(0).permutation(order)
    assert recognise(like_cifar_10(order), "test") == "CIFAR-10 test"
    assert recognise(like_cifar_10(shuffled, CIFAR_10_NAMES[::-1]), "test") == "CIFAR-10 test"
    assert recognise(like_cifar_10(shuffled, ("plane", "car", *CIFAR_10_NAMES[2:])), "test") == "CIFAR-10 test"
    one_other = order.copy()
    one_other[7] = 18
    relabelled = like_cifar_10(order)
    relabelled.splits["test"].labels[3] = 4
    for near in (like_cifar_10(order[:-1]), like_cifar_10(one_other), relabelled):
        assert recognise(near, "test") is None
    assert recognise(like_cifar_10(order, split="val"), "val") is None


CIFAR_10_FILES = Path(os.environ.get("RESIDUUM_CIFAR10", "cifar10"))


@pytest.mark.skipif(not (CIFAR_10_FILES / "test").is_dir(), reason="needs CIFAR-10 as image files (RESIDUUM_CIFAR10)")
def test_the_real_cifar_10_is_recognised() -> None:
    assert recognise(open_data(str(CIFAR_10_FILES)), "test") == "CIFAR-10 test"


def like_imagenet(
    classes: Sequence[str] = WORDNET_IDS,
    images: int = 50_000,
    name: str = "val/n01440764/ILSVRC2012_val_{:08d}.JPEG",
    sizes: Sequence[tuple[int, int]] = ((375, 500), (500, 375), (333, 500)),
    split: str = "val",
) -> DataSet:
    images_ = Few(np.zeros(images, np.int64), name.format, sizes)
    return DataSet("imagenet", tuple(classes), {split: images_}, multi_label=False)


def test_imagenet_is_known_by_its_classes_its_files_names_and_their_many_sizes() -> None:
    assert recognise(like_imagenet(), "val") == "ImageNet val"
    assert recognise(like_imagenet(split="test"), "test") == "ImageNet val"


@pytest.mark.parametrize(
    ("dataset", "split"),
    [
        (like_imagenet(images=49_999), "val"),
        (like_imagenet(split="train"), "train"),
        (like_imagenet(WORDNET_IDS[1:]), "val"),
        (like_imagenet((*WORDNET_IDS[1:], "tench")), "val"),
        (like_imagenet((*WORDNET_IDS[1:], "n0144076")), "val"),
        (like_imagenet(sizes=[(224, 224)]), "val"),  # as the altered copies of ImageNet-C have it
        (like_imagenet(name="val/{}.JPEG"), "val"),
        (DataSet("./cifar100", ("a",), {"test": Few(np.zeros(10_000, np.int64), str, [(32, 32)])}, False), "test"),
    ],
)
def test_what_only_resembles_a_known_test_set_is_not_taken_for_it(dataset: DataSet, split: str) -> None:
    assert recognise(dataset, split) is None


def test_a_test_set_is_read_only_where_there_is_a_figure_to_print(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(published, "recognise", lambda dataset, split: asked.append(split) or CIFAR_10)
    dataset = like_cifar_10(np.arange(10))
    assert published_on(dataset, "test", [("resnet9_16", None, "1-crop 32")]) == [()]
    assert asked == []
    networks = [("resnet9_16", None, "1-crop 32"), ("resnet20", None, "1-crop 32"), ("resnet20", "B", "1-crop 32")]
    assert [len(found) for found in published_on(dataset, "test", networks)] == [0, 1, 0]
    assert asked == ["test"]
