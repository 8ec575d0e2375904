from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from image_bytes import encoded, unlabelled
from PIL import Image

from residuum.data.facts import DataFacts, data_facts
from residuum.data.sources import open_data
from residuum.data.splits import ArraySplit, FileSplit, NumberedNames
from residuum.errors import UserError


def write(folder: Path, images: list[Image.Image]) -> FileSplit:
    for index, image in enumerate(images):
        (folder / f"{index}.png").write_bytes(encoded(image, "PNG"))
    return unlabelled(sorted(folder.iterdir()))


def test_facts_of_digits() -> None:
    data = open_data("digits")
    assert data_facts(data.train, data.classes, False) == DataFacts(1438, 10, 1, 8, 8, False)


def test_size_is_the_median(tmp_path: Path) -> None:
    split = write(tmp_path, [Image.new("RGB", size) for size in ((10, 20), (30, 40), (50, 90))])
    facts = data_facts(split, ["a", "b"], True)
    assert (facts.height, facts.width, facts.channels) == (40, 30, 3)


def test_grey_needs_every_image_grey(tmp_path: Path) -> None:
    sixteen_bit = Image.fromarray(np.zeros((4, 4), np.uint16))
    grey = write(tmp_path, [Image.new("L", (4, 4)), Image.new("LA", (4, 4)), Image.new("1", (4, 4)), sixteen_bit])
    assert data_facts(grey, ["a"], False).channels == 1
    mixed = write(tmp_path, [Image.new("RGB", (4, 4))])
    assert data_facts(mixed, ["a"], False).channels == 3


def test_unreadable_images_are_passed_over_unless_all_are(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"cat": 2})
    (folder / "cat/0.png").write_bytes(b"")
    assert data_facts(unlabelled(sorted((folder / "cat").iterdir())), ["cat"], False).height == 4
    (folder / "cat/1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the images can be read; the first is .*0.png: empty"):
        data_facts(unlabelled(sorted((folder / "cat").iterdir())), ["cat"], False)


def test_at_most_a_thousand_headers_are_read() -> None:
    class Counting(ArraySplit):
        probed: ClassVar[list[int]] = []

        def probe(self, index: int):
            self.probed.append(index)
            return super().probe(index)

    split = Counting(np.zeros((5_000, 1, 1, 1), np.uint8), np.zeros(5_000, np.int64), NumberedNames("x", 5_000))
    data_facts(split, ["a"], False)
    assert len(set(split.probed)) == 1_000
    assert {0, 4_999} <= set(split.probed)
