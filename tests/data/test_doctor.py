import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_bytes import coloured_png, encoded
from PIL import Image

from residuum.data.doctor import CHUNK, check_data
from residuum.data.sources import DataSet, open_data
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.errors import UserError
from residuum.records import plain

MakeFolder = Callable[..., Path]


def test_healthy_data_need_nothing(make_folder: MakeFolder) -> None:
    report = check_data(open_data(str(make_folder({"train/cat": 3, "train/dog": 4, "val/cat": 1, "val/dog": 2}))))
    assert report.images == 10
    assert report.counts.records() == [
        {"class": "cat", "train": 3, "val": 1},
        {"class": "dog", "train": 4, "val": 2},
        {"class": "all", "train": 7, "val": 3},
    ]
    assert report.sizes.rows == (("6x4", 10),)
    assert report.modes.rows == (("RGB", 10),)
    assert report.imbalance == pytest.approx(4 / 3)
    assert report.verdict == ("Nothing to fix was found.",)


def test_channel_statistics_are_those_of_numpy(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "train" / "cat"
    folder.mkdir(parents=True)
    images = [random.integers(0, 256, (5 + i, 7, 3), np.uint8) for i in range(4)]
    for index, image in enumerate(images):
        (folder / f"{index}.png").write_bytes(encoded(Image.fromarray(image), "PNG"))
    report = check_data(open_data(str(tmp_path)))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    assert [row[0] for row in report.channels.rows] == ["red", "green", "blue"]
    np.testing.assert_allclose([row[1] for row in report.channels.rows], pixels.mean(0))
    np.testing.assert_allclose([row[2] for row in report.channels.rows], pixels.std(0))
    assert report.sizes.notes == ("4 sizes; width 7 to 7 pixels, median 7; height 5 to 8 pixels, median 6.",)


def test_peers_7_bad_files_are_named_with_their_reasons(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/cat": 2, "val/cat": 2})
    (folder / "train/cat/0.png").write_bytes(b"")
    (folder / "val/cat/1.png").write_bytes(coloured_png(3)[:50])
    report = check_data(open_data(str(folder)))
    assert report.bad == 2
    assert report.bad_files.rows == (
        ("train", "train/cat/0.png", "empty (0 bytes)"),
        ("val", "val/cat/1.png", "truncated"),
    )
    assert report.verdict == ("Unreadable: 2 files; left out of training, counted as errors in evaluation.",)


def test_duplicates_are_found_inside_and_across_splits_and_under_other_labels(
    make_folder: MakeFolder,
) -> None:
    folder = make_folder({"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    content = {path: (folder / path).read_bytes() for path in ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png")}
    (folder / "train/cat/again.png").write_bytes(content["train/cat/0.png"])
    (folder / "val/cat/leak.png").write_bytes(content["train/cat/1.png"])
    (folder / "val/cat/other.png").write_bytes(content["train/dog/0.png"])
    report = check_data(open_data(str(folder)))
    assert report.duplicate_groups == 3
    assert report.duplicates.rows == (
        (2, "train, val", "dog or cat", "train: train/dog/0.png, val: val/cat/other.png"),
        (2, "train, val", "cat", "train: train/cat/1.png, val: val/cat/leak.png"),
        (2, "train", "cat", "train: train/cat/0.png, train: train/cat/again.png"),
    )
    assert [sentence.split(";")[0] for sentence in report.verdict] == [
        "The same under different labels: 1 image",
        "In more than one split: 2 images",
        "Repeating another of the same split: 1 image",
    ]


def test_imbalance_is_put_into_a_sentence(make_folder: MakeFolder) -> None:
    report = check_data(open_data(str(make_folder({"train/cat": 12, "train/dog": 2}))))
    assert report.imbalance == 6
    assert report.verdict[0].startswith("The largest class, cat (12 images), is 6.0 times the smallest, dog (2)")


def test_unknown_classes_have_a_row(make_folder: MakeFolder) -> None:
    report = check_data(open_data(str(make_folder({"train/cat": 1, "val/cat": 1, "val/owl": 2}))))
    assert report.counts.rows[1] == ("(not in the class list)", 0, 2)
    assert report.notes == ("val: not in the class list: owl (2 images, counted as errors).",)


def test_multi_label_data_are_counted_by_label(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(coloured_png(index // 2))
    (tmp_path / "list.csv").write_text("path,label,split\n0.png,a|b,train\n1.png,a,train\n2.png,b,train\n")
    report = check_data(open_data(str(tmp_path / "list.csv")))
    assert report.counts.rows == (("a", 2), ("b", 2), ("all", 3))
    assert report.duplicates.rows[0][2] == "a|b or a"


def test_worker_that_dies_is_one_line() -> None:
    class Deadly(ArraySplit):
        def read(self, index: int, channels: int) -> np.ndarray:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    images = np.zeros((5 * CHUNK, 1, 1, 1), np.uint8)
    split = Deadly(images, np.zeros(len(images), np.int64), NumberedNames("x", len(images)))
    with pytest.raises(UserError, match="a worker process died"):
        check_data(DataSet("deadly", ("a",), {"train": split}, multi_label=False))


def test_report_is_plain_json_and_worker_processes_change_nothing() -> None:
    report = check_data(open_data("digits"))  # large enough for worker processes
    assert report.images == 1797
    assert report.counts.rows[-1] == ("all", 1438, 359)
    assert [row[0] for row in report.channels.rows] == ["grey"]
    data = open_data("digits")
    pixels = np.stack([data.train.read(i, 1) for i in range(len(data.train))]) / 255
    np.testing.assert_allclose(report.channels.rows[0][1:], (pixels.mean(), pixels.std()))
    assert json.loads(json.dumps(plain(report)))["verdict"] == list(report.verdict)
