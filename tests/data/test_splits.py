import pickle
from pathlib import Path

import numpy as np
import pytest
from image_bytes import coloured_png, unlabelled
from PIL import Image

from residuum.data.decoding import BadImage
from residuum.data.splits import (
    ArraySplit,
    BytesSplit,
    FileSplit,
    JoinedSplit,
    NumberedNames,
    PackedNames,
    Split,
    SubSplit,
)

SHADES = (3, 1, 4)


@pytest.fixture(params=["array", "file", "bytes", "sub", "joined"])
def split(request: pytest.FixtureRequest, tmp_path: Path) -> Split:
    """Three images of shades 3, 1, 4 in red, labels 0, 1, -1, of each kind."""
    labels = np.array([0, 1, -1])
    contents = [coloured_png(shade) for shade in SHADES]
    if request.param == "bytes":
        (tmp_path / "blob").write_bytes(b"".join(contents))
        ends = np.cumsum([len(content) for content in contents])
        return BytesSplit(tmp_path / "blob", ends, labels, NumberedNames("x", 3))
    if request.param == "array":
        images = np.zeros((3, 4, 6, 3), np.uint8)
        for image, shade in zip(images, SHADES, strict=True):
            image[:] = (shade, 10, 200)
        return ArraySplit(images, labels, NumberedNames("x", 3))
    for index, content in enumerate(contents):
        (tmp_path / f"{index}.png").write_bytes(content)
    files = FileSplit(tmp_path, PackedNames(f"{index}.png" for index in range(3)), labels)
    if request.param == "sub":
        backwards = SubSplit(files, np.array([2, 1, 0]))
        return SubSplit(backwards, np.array([2, 1, 0]))
    if request.param == "joined":
        return JoinedSplit((SubSplit(files, np.array([0])), SubSplit(files, np.array([1, 2]))))
    return files


def test_every_kind_reads_the_image_of_its_index(split: Split) -> None:
    assert len(split) == len(split.names) == len(split.labels) == 3
    assert split.labels.tolist() == [0, 1, -1]
    for index, shade in enumerate(SHADES):
        assert split.read(index, 3)[0, 0].tolist() == [shade, 10, 200]
        assert split.read(index, 1).shape == (4, 6, 1)
        assert split.probe(index) == (6, 4, "RGB")
        assert split.content(index)
        assert split.signature(index)


def test_every_kind_works_in_another_process_after_use_in_this_one(split: Split) -> None:
    split.read(0, 3)
    copy = pickle.loads(pickle.dumps(split))
    assert [copy.read(i, 3)[0, 0, 0] for i in range(3)] == list(SHADES)
    assert list(copy.names) == list(split.names)


def test_a_mapped_file_is_not_pickled_with_its_split(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(bytes(1_000_000))
    split = BytesSplit(tmp_path / "blob", np.array([1_000_000]), np.array([0]), NumberedNames("x", 1))
    split.content(0)
    assert len(pickle.dumps(split)) < 2_000


def test_array_images_turn_grey_as_decoded_files_do() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 30, 20, 3), np.uint8)
    split = ArraySplit(images, np.array([0]), NumberedNames("x", 1))
    np.testing.assert_array_equal(split.read(0, 1)[..., 0], np.asarray(Image.fromarray(images[0]).convert("L")))


def test_changing_a_read_image_leaves_the_split_as_it_was() -> None:
    split = ArraySplit(np.zeros((1, 2, 2, 3), np.uint8), np.array([0]), NumberedNames("x", 1))
    split.read(0, 3)[:] = 9
    assert not split.read(0, 3).any()


def test_missing_file_is_a_bad_image_and_has_a_signature(tmp_path: Path) -> None:
    split = unlabelled([tmp_path / "none.png"])
    for read in (lambda: split.read(0, 3), lambda: split.probe(0), lambda: split.content(0)):
        with pytest.raises(BadImage, match=r"none\.png: no such file"):
            read()
    assert split.signature(0) == b"unreadable"
    assert split.labels.tolist() == [-1]


def test_row_without_bytes_is_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"")
    split = BytesSplit(tmp_path / "blob", np.array([0]), np.array([0]), NumberedNames("train", 1))
    with pytest.raises(BadImage, match=r"train\[0\]: empty"):
        split.read(0, 3)


def test_any_file_name_survives_and_can_be_printed(tmp_path: Path) -> None:
    odd = [b"caf\xc3\xa9.png", b"latin-\xe9.png", b"new\nline.png"]
    for name in odd:
        (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(coloured_png(1))
    split = unlabelled(sorted(tmp_path.iterdir()))
    for index, name in enumerate(split.names):
        name.encode()
        assert split.read(index, 3)[0, 0, 0] == 1


def test_names_behave_as_a_sequence() -> None:
    names = PackedNames(["a", "", "bc"])
    assert list(names) == ["a", "", "bc"]
    assert names[-1] == "bc"
    assert names[1:] == ["", "bc"]
    assert "bc" in names
    with pytest.raises(IndexError):
        names[3]


def test_a_million_paths_are_a_few_objects() -> None:
    names = PackedNames(f"train/cat/{index:07d}.png" for index in range(100_000))
    assert len(pickle.dumps(names)) < 100_000 * 32
    assert names[99_999] == "train/cat/0099999.png"
