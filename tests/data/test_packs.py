import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_bytes import coloured_png, encoded
from PIL import Image
from safetensors.numpy import load_file

from residuum.data import pack_writer, packing
from residuum.data.decoding import BadImage
from residuum.data.doctor import check_data
from residuum.data.facts import data_facts
from residuum.data.pack_writer import plan_split, reduced, write_split
from residuum.data.packed_split import HEADER_BYTES, Counts, PackedSplit, layout
from residuum.data.packing import open_source, write_pack
from residuum.data.packs import open_pack
from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import open_data
from residuum.data.splits import Split
from residuum.data.workers import LoaderSettings
from residuum.errors import UserError

MakeFolder = Callable[..., Path]
Change = Callable[[Path], None]


@contextmanager
def unwatched(_: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def packed(
    spec: str | Path, out: Path, *, shorter_side: int | None = None, workers: int = 0, val_fraction: float = 0.2
) -> Path:
    source = open_source(str(spec), root=None, val_fraction=val_fraction, split_seed=0)
    return write_pack(source, out, shorter_side=shorter_side, workers=workers, watch=unwatched).folder


def noise(mode: str, height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., :2].copy().view(np.uint16)[..., 0])
    return Image.fromarray(values, "RGBA").convert(mode)


COLOURED = [
    ("RGB", "PNG"),
    ("RGB", "JPEG"),
    ("RGBA", "PNG"),
    ("RGBA", "WEBP"),
    ("P", "PNG"),
    ("P", "GIF"),
    ("CMYK", "JPEG"),
]
GREY = [("L", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("I;16", "PNG"), ("L", "JPEG")]
TRUNCATED = encoded(noise("RGB", 40, 60), "JPEG")[:1000]


def folder_of(place: Path, kinds: list[tuple[str, str]]) -> Path:
    """Two classes of images of these modes and formats, each of its own size, divided into train and test."""
    for index, (mode, kind) in enumerate(kinds):
        for split in ("train", "test"):
            for name in ("ape", "bee"):
                (place / split / name).mkdir(parents=True, exist_ok=True)
                image = encoded(noise(mode, 5 + index, 7 + 2 * index, seed=index), kind)
                (place / split / name / f"{index}.{kind.lower()}").write_bytes(image)
    return place


def read_or_reason(split: Split, index: int, channels: int) -> tuple[str, Any]:
    try:
        image = split.read(index, channels)
        return "image", (image.shape, image.tobytes())
    except BadImage as bad:
        return "bad", (bad.name, bad.reason)


def facts_or_none(split: Split, index: int) -> object:
    try:
        return split.probe(index)
    except BadImage:
        return None


def assert_same_splits(one: dict[str, Split], other: dict[str, Split]) -> None:
    """Everything that a run could see, of every image."""
    assert list(one) == list(other)
    for name, split in one.items():
        same = other[name]
        assert list(split.names) == list(same.names)
        assert split.labels.tolist() == same.labels.tolist()
        for index in range(len(split)):
            for channels in (1, 3):
                assert read_or_reason(split, index, channels) == read_or_reason(same, index, channels)
            assert facts_or_none(split, index) == facts_or_none(same, index)


@pytest.mark.parametrize(("kinds", "channels"), [(COLOURED, 3), (GREY, 1), ([*GREY, *COLOURED], 3)])
def test_pack_reads_as_its_source_in_colour_and_in_grey(
    tmp_path: Path, kinds: list[tuple[str, str]], channels: int
) -> None:
    folder = folder_of(tmp_path / "photos", kinds)
    pack = packed(folder, tmp_path / "pack")
    source, data = open_data(str(folder)), open_data(str(pack))
    assert_same_splits(source.splits, data.splits)
    assert data.classes == source.classes == ("ape", "bee")
    assert data_facts(data.train, data.classes, False) == data_facts(source.train, source.classes, False)
    assert open_pack(pack).splits["train"].counts.channels == channels
    assert data.notes == source.notes == ()
    assert open_pack(pack).fingerprint == source.fingerprint()


def test_arrays_are_packed(tmp_path: Path) -> None:
    pack = packed("digits", tmp_path / "pack")
    source, data = open_data("digits"), open_data(str(pack))
    for name, split in source.splits.items():
        assert data.splits[name].names[5] == split.names[5]
        assert data.splits[name].labels.tolist() == split.labels.tolist()
        assert all((data.splits[name].read(i, 1) == split.read(i, 1)).all() for i in range(len(split)))
        assert data.splits[name].probe(0) == split.probe(0)


def test_bad_images_keep_their_place_their_name_and_their_reason(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/ape": 3, "train/bee": 3, "test/ape": 2, "test/bee": 2})
    for split in ("train", "test"):
        (folder / split / "ape" / "1.png").write_bytes(TRUNCATED)  # whose header is sound
        (folder / split / "bee" / "0.png").write_bytes(b"no image at all")
        (folder / split / "bee" / "1.png").write_bytes(b"")
    pack = packed(folder, tmp_path / "pack")
    assert_same_splits(open_data(str(folder)).splits, open_data(str(pack)).splits)
    assert [open_pack(pack).splits[name].counts.left_out for name in ("train", "test")] == [3, 3]
    entry = json.loads((pack / "pack.json").read_text())["splits"]["test"]
    assert entry["bad_images"][0] == ["test/ape/1.png", "truncated"]
    report = check_data(open_data(str(pack)))
    assert report.bad_files.rows == check_data(open_data(str(folder))).bad_files.rows


def test_split_without_one_readable_image_is_packed(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "ape").mkdir(parents=True)
        (tmp_path / "photos" / split / "ape" / "0.png").write_bytes(b"" if split == "test" else coloured_png(1))
    data = open_data(str(packed(tmp_path / "photos", tmp_path / "pack")))
    with pytest.raises(BadImage, match=r"0\.png: empty"):
        data.splits["test"].read(0, 3)


def test_classes_are_matched_by_name_as_in_the_source(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/ant": 1, "train/cat": 1, "val/ant": 1, "val/bee": 2, "test/cat": 1, "test/elk": 1})
    pack = packed(folder, tmp_path / "pack")
    for classes in (None, ["ant", "bee", "cat"], ["elk", "cat"]):
        source, data = open_data(str(folder), classes=classes), open_data(str(pack), classes=classes)
        assert data.classes == source.classes
        assert data.notes == source.notes
        assert_same_splits(source.splits, data.splits)


def test_drawn_splits_are_packed_as_they_were_drawn(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"cat": 10, "dog": 20})
    source = open_data(str(folder), val_fraction=0.4)
    data = open_data(str(packed(folder, tmp_path / "pack", val_fraction=0.4)), val_fraction=0.1, split_seed=7)
    assert_same_splits(source.splits, data.splits)
    assert data.monitored()[0] == data.held_out()[0] == "val"
    assert data.notes == ("The data had no splits; val was drawn for the pack (40%, seed 0).",)


def test_several_labels_an_image_are_packed(make_folder: MakeFolder, tmp_path: Path) -> None:
    make_folder({"cat": 4})
    lines = [
        "path,label,split",
        "cat/0.png,cat|out,train",
        "cat/1.png,,train",
        "cat/2.png,cat,val",
        "cat/3.png,sea,val",
    ]
    (tmp_path / "photos" / "list.csv").write_text("\n".join(lines))
    spec, pack = tmp_path / "photos" / "list.csv", tmp_path / "pack"
    packed(spec, pack)
    source, data = open_data(str(spec)), open_data(str(pack))
    assert data.multi_label
    assert (data.classes, data.notes) == (source.classes, source.notes)
    assert_same_splits(source.splits, data.splits)
    assert open_data(str(pack), classes=["sea", "cat"]).splits["val"].labels.tolist() == [[0, 1], [1, 0]]


def test_names_of_any_bytes_survive(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/ça va": 1, "test/ça va": 1})
    os.rename(os.fsencode(folder / "train/ça va/0.png"), os.fsencode(folder / "train/ça va/") + b"\xff\n.png")
    assert_same_splits(open_data(str(folder)).splits, open_data(str(packed(folder, tmp_path / "pack"))).splits)


def test_worker_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "photos", [*GREY, *COLOURED])
    (folder / "train" / "ape" / "z.png").write_bytes(b"")
    monkeypatch.setattr(pack_writer, "_CHUNK_BYTES", 500)
    one, two = packed(folder, tmp_path / "one"), packed(folder, tmp_path / "two", workers=2)
    for file in one.iterdir():
        assert (two / file.name).read_bytes() == file.read_bytes()


def test_images_are_handed_over_in_bounded_pieces() -> None:
    lengths = np.array([0, 5, 10**9, 3 * 2**20, 2**20, 1, *[1] * 600])
    chunks = pack_writer._chunks(lengths)
    assert [index for chunk in chunks for index in chunk] == list(range(len(lengths)))
    assert all(len(chunk) == 1 or lengths[list(chunk)].sum() <= 2**22 for chunk in chunks)
    assert max(map(len, chunks)) <= 256
    assert pack_writer._chunks(np.zeros(0, np.int64)) == []


def test_split_is_read_in_another_process_after_use_in_this_one(make_folder: MakeFolder, tmp_path: Path) -> None:
    data = open_data(str(packed(make_folder({"train/cat": 3, "test/cat": 1}), tmp_path / "pack")))
    expected = data.train.read(2, 3)
    content = pickle.dumps(data.train)
    assert len(content) < 2000  # no pixels travel
    assert (pickle.loads(content).read(2, 3) == expected).all()
    expected[:] = 0
    assert data.train.read(2, 3).any()  # what was read is the reader's own


def test_fingerprint_follows_the_pixels(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/cat": 2, "test/cat": 1})
    before = open_data(str(packed(folder, tmp_path / "one"))).fingerprint()
    assert open_data(str(packed(folder, tmp_path / "two"))).fingerprint() == before
    (folder / "train" / "cat" / "1.png").write_bytes(coloured_png(99))
    assert open_data(str(packed(folder, tmp_path / "one"))).fingerprint() != before


def test_duplicates_are_found_in_a_pack(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/cat": 3, "test/cat": 1})
    (folder / "test" / "cat" / "0.png").write_bytes(coloured_png(1))
    assert check_data(open_data(str(packed(folder, tmp_path / "pack")))).duplicate_groups == 1


def test_any_reader_of_safetensors_opens_a_split(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/cat": 2, "test/cat": 1})
    (folder / "train" / "cat" / "2.png").write_bytes(TRUNCATED)
    pack = packed(folder, tmp_path / "pack")
    arrays = load_file(pack / "train.safetensors")
    assert arrays["offsets"].tolist() == [0, 72, 144, 144]
    assert arrays["sizes"].tolist() == [[4, 6], [4, 6], [40, 60]]
    assert arrays["bad"].tolist() == [2]
    assert bytes(arrays["reasons"]) == b"truncated"
    assert (arrays["pixels"][:72].reshape(4, 6, 3) == (0, 10, 200)).all()
    assert load_file(pack / "test.safetensors")["bad"].size == 0


# Reducing.


def test_larger_images_are_reduced_and_smaller_ones_left(tmp_path: Path) -> None:
    sizes = {"wide": (40, 90), "tall": (90, 41), "small": (20, 25), "even": (32, 50), "strip": (33, 900)}
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "ape").mkdir(parents=True)
        for name, size in sizes.items():
            noise("RGB", *size).save(tmp_path / "photos" / split / "ape" / f"{name}.png")
    pack = packed(tmp_path / "photos", tmp_path / "pack", shorter_side=32)
    data, source = open_data(str(pack)), open_data(str(tmp_path / "photos"))
    shapes = {Path(name).stem: data.train.read(index, 3).shape[:2] for index, name in enumerate(data.train.names)}
    assert shapes == {"wide": (32, 72), "tall": (70, 32), "small": (20, 25), "even": (32, 50), "strip": (32, 872)}
    assert [data.train.probe(i)[:2] for i in range(5)] == [data.train.read(i, 3).shape[1::-1] for i in range(5)]
    assert (data.train.read(0, 3) == source.train.read(0, 3)).all()  # even
    assert open_pack(pack).shorter_side == 32
    assert "reduced to a shorter side of 32 pixels" in data.notes[-1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(300, 401), (517, 299), (256, 256), (257, 256)])
def test_evaluation_at_that_side_sees_the_same_bytes(channels: int, size: tuple[int, int]) -> None:
    """ImageNet's usual view: resized to 256, of which the middle 224."""
    view = Preprocessing(channels, 224, 0.875, "bilinear", (0.5,) * channels, (0.5,) * channels).view
    image = np.array(noise("RGB" if channels == 3 else "L", *size)).reshape(*size, channels)
    assert (view(reduced(image, 256)) == view(image)).all()


def test_reducing_averages_what_it_leaves_out() -> None:
    stripes = np.zeros((80, 80, 1), np.uint8)
    stripes[::2] = 255
    assert abs(reduced(stripes, 20)[2:-2].astype(int) - 128).max() <= 2


def test_pack_of_a_pack_is_reduced_further_and_may_replace_it(tmp_path: Path) -> None:
    pack = packed(folder_of(tmp_path / "photos", COLOURED), tmp_path / "pack")
    packed(pack, pack, shorter_side=6)
    data = open_data(str(pack))
    assert {min(data.train.read(i, 3).shape[:2]) for i in range(len(data.train))} == {5, 6}
    assert data.splits["test"].names[0].startswith("test/ape/")


# Writing whole or not at all.


def test_pack_is_replaced_and_nothing_is_left_beside_it(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/cat": 2, "test/cat": 1})
    (tmp_path / "out").mkdir()  # empty: nothing is lost
    for _ in range(2):
        packed(folder, tmp_path / "out" / "pack")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["pack"]
    assert sorted(entry.name for entry in (tmp_path / "out" / "pack").iterdir()) == [
        "pack.json",
        "test.safetensors",
        "train.safetensors",
    ]


def test_pack_goes_where_the_path_leads(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"train/cat": 2, "test/cat": 1})
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for _ in range(2):
        assert packed(folder, tmp_path / "gone" / ".." / "link") == tmp_path / "disk"
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(UserError, match="is no pack"):
        packed(folder, tmp_path / "gone" / ".." / "disk" / "pack.json")


@pytest.mark.parametrize("taken", ["file", "folder", "other pack.json", "pack and more", "images", "link"])
def test_what_is_no_pack_is_not_replaced(make_folder: MakeFolder, tmp_path: Path, taken: str) -> None:
    folder = make_folder({"train/cat": 2, "test/cat": 1})
    out = tmp_path / "out"
    if taken == "file":
        out.write_text("mine")
    elif taken == "link":
        out.symlink_to(folder)
    elif taken == "images":
        out = folder
    elif taken == "pack and more":
        packed(folder, out)
        (out / "notes.txt").write_text("mine")
    else:
        out.mkdir()
        (out / ("pack.json" if taken == "other pack.json" else "notes.txt")).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is no pack, or holds more than one; name another folder, or remove it"):
        packed(folder, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_too_little_room_is_told_beforehand(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr(packing, "write_split", None)  # never called
    with pytest.raises(UserError, match=r"would take 0\.0 MiB, and 0\.0 MiB are free there"):
        packed(make_folder({"train/cat": 2, "test/cat": 1}), tmp_path / "new" / "pack")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_writing_leaves_what_was_there(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    folder = make_folder({"train/cat": 2, "test/cat": 1})
    pack = packed(folder, tmp_path / "out" / "pack")
    before = {file.name: file.read_bytes() for file in pack.iterdir()}

    def fail(file: Path, *_: Any) -> PackedSplit:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(packing, "write_split", fail)
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="no space left on device; free some" if expected is UserError else None):
        packed(folder, pack)
    assert {file.name: file.read_bytes() for file in pack.iterdir()} == before
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["pack"]


def test_images_that_change_between_header_and_pixels_do_not_spoil_the_pack(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder({"train/cat": 3, "test/cat": 1})
    data = open_data(str(folder))
    with unwatched("") as progress:
        (folder / "train" / "cat" / "2.png").write_bytes(b"")
        plan = plan_split(data.train, data.train.labels, None, LoaderSettings(), progress)
        (folder / "train" / "cat" / "0.png").write_bytes(encoded(noise("RGB", 9, 9), "PNG"))
        (folder / "train" / "cat" / "1.png").unlink()
        (folder / "train" / "cat" / "2.png").write_bytes(coloured_png(5))
        split = write_split(tmp_path / "train.safetensors", plan, LoaderSettings(), progress)
    assert split.read(0, 3).shape == (9, 9, 3)
    assert split.read(2, 3)[0, 0].tolist() == [5, 10, 200]
    with pytest.raises(BadImage, match="no such file"):
        split.read(1, 3)
    with pytest.raises(BadImage, match="a damaged header"):
        split.probe(2)


# Damaged and hostile packs.


def described(**changes: Any) -> Change:
    def change(pack: Path) -> None:
        content = json.loads((pack / "pack.json").read_text())
        (pack / "pack.json").write_text(json.dumps({**content, **changes}))

    return change


def counting(**changes: Any) -> Change:
    """Changes what pack.json says of the training split."""

    def change(pack: Path) -> None:
        content = json.loads((pack / "pack.json").read_text())
        content["splits"]["train"] |= changes
        (pack / "pack.json").write_text(json.dumps(content))

    return change


def indexed(array: str, place: int, *values: int) -> Change:
    """Writes numbers over those of an array of the training split."""

    def change(pack: Path) -> None:
        counts = counts_of(pack)
        field = layout(counts)[array]
        kind = {"I64": "<i8", "I32": "<i4", "U8": "u1"}[field.kind]
        with (pack / "train.safetensors").open("r+b") as stream:
            stream.seek(HEADER_BYTES + field.start + place * np.dtype(kind).itemsize)
            stream.write(np.array(values, kind).tobytes())

    return change


def counts_of(pack: Path) -> Counts:
    entry = json.loads((pack / "pack.json").read_text())["splits"]["train"]
    return Counts(**{name: entry[name] for name in Counts.__dataclass_fields__})


def cut(name: str, size: int) -> Change:
    return lambda pack: os.truncate(pack / name, size)


def header_bytes(place: int, content: bytes) -> Change:
    def change(pack: Path) -> None:
        with (pack / "train.safetensors").open("r+b") as stream:
            stream.seek(place)
            stream.write(content)

    return change


def replaced_by_pipe(pack: Path) -> None:
    (pack / "train.safetensors").unlink()
    os.mkfifo(pack / "train.safetensors")


def sparse(pack: Path) -> None:
    """A file of terabytes that takes no room, as long as pack.json says."""
    counting(images=2**36)(pack)
    os.truncate(pack / "train.safetensors", HEADER_BYTES + layout(counts_of(pack))["reasons"].end)


LARGE, LOW = 2**63 - 1, -(2**63)
ATTACKS: dict[str, tuple[Change, str]] = {
    "newer": (described(residuum_pack=2), "is a pack of format 2, and this residuum reads 1"),
    "no version": (described(residuum_pack="1"), "does not describe a pack"),
    "a list": (lambda pack: bytes_to(pack, b"[1]"), "does not describe a pack"),
    "no json": (lambda pack: bytes_to(pack, b"{"), "is no JSON"),
    "deep json": (lambda pack: bytes_to(pack, b"[" * 10**6), "nested deeper|is no JSON"),
    "long json": (lambda pack: bytes_to(pack, b" " * (2**22 + 1)), "is longer than"),
    "empty json": (lambda pack: bytes_to(pack, b""), "is no JSON"),
    "no classes": (described(classes=None), "classes is no list"),
    "odd class": (described(classes=["ape", 1]), "classes is no text"),
    "fewer classes": (described(classes=["ape"]), "a label beyond the class list"),
    "no splits": (described(splits={}), "splits are not of train, val, test"),
    "a way out": (described(splits={"../../etc": {}}), "splits are not of train, val, test"),
    "empty split": (described(splits={"train": {}}), "it lacks 'images'"),
    "split list": (described(splits={"train": [1]}), "is damaged"),
    "odd side": (described(shorter_side="32"), "shorter_side is not a number"),
    "odd spec": (described(spec={}), "spec is no text"),
    "odd note": (described(notes=[None]), "notes is no text"),
    "negative": (counting(images=-1), "images is no count"),
    "true": (counting(images=True), "images is no count"),
    "fraction": (counting(images=1.5), "images is no count"),
    "endless": (counting(images=2**61), "bytes instead of"),
    "more images": (counting(images=7), "bytes instead of"),
    "more pixels": (counting(pixel_bytes=10**15), "bytes instead of"),
    "shifted": (counting(pixel_bytes=361, reason_bytes=8), "its header is not what pack.json describes"),
    "two channels": (counting(channels=2), "2 channels"),
    "columns": (counting(label_columns=5), "5 label columns"),
    "no modes": (counting(modes=[]), "a mode that is not listed"),
    "odd modes": (counting(modes=[0]), "modes is no text"),
    "cut": (cut("train.safetensors", 3000), "3,000 bytes instead of"),
    "cut by one": (lambda pack: os.truncate(pack / "test.safetensors", file_size(pack) - 1), "bytes instead of"),
    "longer": (lambda pack: os.truncate(pack / "test.safetensors", file_size(pack) + 1), "bytes instead of"),
    "emptied": (cut("train.safetensors", 0), "0 bytes instead of"),
    "gone": (lambda pack: (pack / "train.safetensors").unlink(), "no such file"),
    "pipe": (replaced_by_pipe, "no such file"),
    "sparse": (sparse, "an index too large for its images"),
    "header length": (header_bytes(0, b"\xff" * 8), "its header is not what"),
    "header": (header_bytes(30, b"}"), "its header is not what"),
    "first offset": (indexed("offsets", 0, 1), "its images overlap"),
    "offset back": (indexed("offsets", 1, 0), "its images overlap"),
    "offset beyond": (indexed("offsets", 1, LARGE), "its images overlap"),
    "offset before": (indexed("offsets", 1, LOW), "its images overlap"),
    "last offset": (indexed("offsets", 6, 10**12), "its images overlap"),
    "huge size": (indexed("sizes", 0, 2**31 - 1, 2**31 - 1), "an image of an impossible size"),
    "negative size": (indexed("sizes", 0, -4, -6), "an image of an impossible size"),
    "no size": (indexed("sizes", 0, 0, 0), "an image of an impossible size"),
    "other size": (indexed("sizes", 0, 6, 5), "its images overlap"),
    "label": (indexed("labels", 0, 2), "a label beyond the class list"),
    "low label": (indexed("labels", 0, -2), "a label beyond the class list"),
    "mode": (indexed("modes", 0, 7), "a mode that is not listed"),
    "name": (indexed("name_ends", 0, LARGE), "its names overlap"),
    "name before": (indexed("name_ends", 0, -1), "its names overlap"),
    "last name": (indexed("name_ends", 5, 10**6), "its names overlap"),
    "bad beyond": (indexed("bad", 0, 6), "the images left out are none"),
    "bad before": (indexed("bad", 0, -1), "the images left out are none"),
    "another bad": (indexed("bad", 0, 2), "its images overlap|impossible size"),
    "reason": (indexed("reason_ends", 0, 10**9), "its reasons overlap"),
}


def bytes_to(pack: Path, content: bytes) -> None:
    (pack / "pack.json").write_bytes(content)


def file_size(pack: Path) -> int:
    return (pack / "test.safetensors").stat().st_size


@pytest.fixture
def sound(make_folder: MakeFolder, tmp_path: Path) -> Path:
    """Six training images, of which the last gives none."""
    folder = make_folder({"train/ape": 3, "train/bee": 3, "test/ape": 1, "test/bee": 1})
    (folder / "train" / "bee" / "2.png").write_bytes(TRUNCATED)
    return packed(folder, tmp_path / "pack")


@pytest.mark.parametrize("attack", ATTACKS)
def test_damaged_or_hostile_pack_is_refused_at_opening(sound: Path, attack: str) -> None:
    change, message = ATTACKS[attack]
    change(sound)
    with pytest.raises(UserError, match=message) as refusal:
        open_data(str(sound))
    line = str(refusal.value)
    assert "\n" not in line
    assert len(line.replace(str(sound.parent), "")) < 300


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_bytes_are_refused_or_read_within_the_file(sound: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["pack.json", "train.safetensors"]))
    before = (sound / name).read_bytes()
    spoilt = bytearray(before)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
    (sound / name).write_bytes(spoilt)
    assert "\n" not in refusal_of(sound)
    (sound / name).write_bytes(before)


def refusal_of(pack: Path) -> str:
    """What opening a pack says against it; "" where all of it can be read."""
    try:
        opened = open_data(str(pack))
    except UserError as refusal:
        return str(refusal)
    check_data(opened)
    opened.fingerprint()
    for index in range(len(opened.train)):
        for channels in (1, 3):
            assert read_or_reason(opened.train, index, channels)
    return ""


def test_pack_that_shrinks_after_opening_is_refused_where_it_is_opened_anew(sound: Path) -> None:
    train = open_data(str(sound)).train
    content = pickle.dumps(train)
    shutil.copy(sound / "test.safetensors", sound / "other")
    os.replace(sound / "other", sound / "train.safetensors")
    assert train.read(0, 3).shape == (4, 6, 3)  # what is mapped stays
    with pytest.raises(UserError, match="bytes instead of"):
        pickle.loads(content).read(0, 3)


def test_control_characters_of_a_pack_do_not_reach_the_terminal(sound: Path) -> None:
    described(notes=["\x1b[2J"])(sound)
    indexed("reasons", 0, 0x1B)(sound)
    data = open_data(str(sound))
    assert data.notes == ("\\x1b[2J",)
    with pytest.raises(BadImage, match=r"\\x1bruncated"):
        data.train.read(5, 3)


def test_reading_a_pack_decodes_nothing(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    data = open_data(str(sound))
    assert data.train.read(0, 1).shape == (4, 6, 1)
    assert data.train.probe(0) == (6, 4, "RGB")
