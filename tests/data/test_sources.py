import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_bytes import coloured_png

from residuum.data.sources import DataSet, open_data
from residuum.data.sources.assembly import Found, Reading, assemble, stratified_draw
from residuum.data.sources.dataset import natural_order
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.errors import UserError

MakeFolder = Callable[..., Path]


def by_class(data: DataSet, split: str) -> dict[str, int]:
    """How many images of each class a split holds, once every label agrees with its image's folder."""
    found = data.splits[split]
    for name, label in zip(found.names, found.labels, strict=True):
        assert label < 0 or Path(name).parent.name == data.classes[label]
    return {name: int((found.labels == index).sum()) for index, name in enumerate(data.classes)}


def test_split_folders_are_read(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 2})))
    assert data.classes == ("cat", "dog")
    assert by_class(data, "train") == {"cat": 3, "dog": 2}
    assert by_class(data, "val") == {"cat": 1, "dog": 2}
    assert data.notes == ()
    assert not data.multi_label


def test_peers_1_class_missing_from_validation_shifts_nothing_and_is_noted(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"train/ant": 1, "train/bee": 1, "train/cat": 1, "val/bee": 2, "val/cat": 1})))
    assert by_class(data, "val") == {"ant": 0, "bee": 2, "cat": 1}
    assert data.notes == ("val: no images of ant.",)


def test_peers_1_class_unknown_to_training_becomes_minus_one_and_is_noted(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"train/ant": 1, "train/cat": 1, "val/ant": 1, "val/bee": 2, "val/cat": 1})))
    assert data.classes == ("ant", "cat")
    assert data.splits["val"].labels.tolist() == [0, -1, -1, 1]
    assert data.notes == ("val: not in the class list: bee (2 images, counted as errors).",)


def test_two_classes_of_the_same_name_stay_two(tmp_path: Path) -> None:
    """As the two cranes of ImageNet's list."""
    images = ArraySplit(np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 1, 2]), NumberedNames("x", 3))
    reading = Reading({"train": Found(images, ("crane", "owl", "crane"))})
    for classes, labels in ((None, [0, 1, 2]), (("owl", "crane", "crane"), [1, 0, 2])):
        assert assemble("birds", reading, classes, 0.2, 0).train.labels.tolist() == labels


def test_labels_follow_a_model_by_name(make_folder: MakeFolder) -> None:
    folder = str(make_folder({"test/cat": 1, "test/dog": 2, "test/owl": 1}))
    data = open_data(folder, classes=["dog", "zebra", "cat"])
    assert data.classes == ("dog", "zebra", "cat")
    assert data.splits["test"].labels.tolist() == [2, 0, 0, -1]
    assert data.notes[0] == "test: no images of zebra."
    with pytest.raises(UserError, match="share no class; the data's are cat, dog, owl, the model's car"):
        open_data(folder, classes=["car"])


@pytest.mark.parametrize(
    ("folder", "split"),
    [("val", "val"), ("valid", "val"), ("validation", "val"), ("test", "test"), ("Testing", "test")],
)
def test_peers_8_every_name_of_a_split_is_understood(make_folder: MakeFolder, folder: str, split: str) -> None:
    data = open_data(str(make_folder({"train/cat": 1, f"{folder}/cat": 1})))
    assert set(data.splits) == {"train", split}
    assert data.monitored()[0] == data.held_out()[0] == split


def test_peers_8_one_folder_a_class_is_divided_by_a_stratified_draw(make_folder: MakeFolder) -> None:
    folder = str(make_folder({"cat": 10, "dog": 20, "owl": 1}))
    data = open_data(folder)
    assert by_class(data, "train") == {"cat": 8, "dog": 16, "owl": 1}
    assert by_class(data, "val") == {"cat": 2, "dog": 4, "owl": 0}
    assert not set(data.splits["train"].names) & set(data.splits["val"].names)
    assert data.notes == (
        "The data have no splits; val was drawn: 6 of 31 images (20% of each class, seed 0).",
        "One image only, which went to train: owl.",
    )
    assert list(open_data(folder).splits["val"].names) == list(data.splits["val"].names)
    assert list(open_data(folder, split_seed=1).splits["val"].names) != list(data.splits["val"].names)
    assert len(open_data(folder, val_fraction=0.5).splits["val"]) == 15


def test_draw_is_the_same_under_a_models_classes(make_folder: MakeFolder) -> None:
    folder = str(make_folder({"cat": 10, "dog": 10}))
    own, models = open_data(folder), open_data(folder, classes=["dog", "owl"])
    assert list(own.splits["val"].names) == list(models.splits["val"].names)


def test_all_is_every_image_of_every_split(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"cat": 5, "dog": 5})))
    name, everything = data.held_out("all")
    assert (name, len(everything)) == ("all", 10)
    assert sorted(everything.names) == sorted([*data.splits["train"].names, *data.splits["val"].names])
    with pytest.raises(UserError, match="no split 'test'; it has train, val, together: all"):
        data.held_out("test")


def test_only_a_test_folder_serves_evaluation_and_not_training(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"test/cat": 2})))
    assert data.held_out()[0] == "test"
    assert data.notes == ("There is no train split; the class list is that of test.",)
    with pytest.raises(UserError, match="has no training images, only test"):
        _ = data.train


def test_only_a_train_folder_has_nothing_to_watch(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"train/cat": 2, "train/dog": 2})))
    with pytest.raises(UserError, match="has only train; training needs a val or test split"):
        data.monitored()
    assert data.held_out()[0] == "train"


def test_class_called_train_among_others_is_a_class(make_folder: MakeFolder) -> None:
    assert open_data(str(make_folder({"car": 2, "bus": 2, "train": 2}))).classes == ("bus", "car", "train")


def test_what_is_no_image_or_hidden_or_beside_is_left_out_and_noted(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/cat": 1, "val/cat": 1, "train/.cache": 1, ".git": 1, "extra": 1, "val/empty/deep": 0})
    (folder / "train/cat/notes.txt").write_text("x")
    (folder / "train/cat/.DS_Store").write_text("x")
    (folder / "train/loose.png").write_bytes(coloured_png(1))
    data = open_data(str(folder))
    assert list(data.train.names) == ["train/cat/0.png"]
    assert data.notes == (
        "Folders beside the splits are left out: extra.",
        "train: left out, outside of class folders: 1 image.",
        "train: 1 file without an image's suffix: train/cat/notes.txt.",
        "val: folders without images are no classes: empty.",
    )


def test_nested_files_belong_to_the_class_above(make_folder: MakeFolder) -> None:
    data = open_data(str(make_folder({"cat/2023/may": 2, "cat": 1, "dog": 1})), val_fraction=0.4)
    assert sorted(data.held_out("all")[1].labels.tolist()) == [0, 0, 0, 1]


def test_link_loops_end_and_linked_folders_are_followed(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/cat": 1, "train/dog": 1, "elsewhere/sub": 2})
    (folder / "train/cat/loop").symlink_to(folder / "train/cat")
    (folder / "train/cat/up").symlink_to(folder / "train")
    (folder / "train/dog/far").symlink_to(folder / "elsewhere")
    (folder / "train/dog/self.png").symlink_to(folder / "train/dog/self.png")
    data = open_data(str(folder))
    names = set(data.train.names)
    assert {"train/cat/0.png", "train/dog/0.png", "train/dog/far/sub/0.png", "train/dog/self.png"} <= names


def test_classes_are_in_natural_order(make_folder: MakeFolder) -> None:
    counts = {f"train/{index}": 1 for index in range(12)}
    assert open_data(str(make_folder(counts))).classes == tuple(str(index) for index in range(12))
    assert natural_order(["9" * 5_000, "2"]) == ["2", "9" * 5_000]
    assert natural_order(["b10", "b9", "a", "10", "9", "b", "01", "1"]) == [
        "01",
        "1",
        "9",
        "10",
        "a",
        "b",
        "b9",
        "b10",
    ]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no class folders with images"),
        ({"cat": 0, "dog": 0}, "no images in"),
        ({"train/cat": 0}, "no images in"),
        ({"train": 2, "test": 2}, "no class folders with images"),
        ({".": 3}, "no class folders with images"),
        ({"train/cat": 1, "val/cat": 1, "valid/cat": 1}, "two val splits, val and valid; keep one"),
    ],
)
def test_folder_without_images_in_a_layout_is_refused(
    make_folder: MakeFolder, tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=message):
        open_data(str(make_folder(counts)))


def test_unknown_spec_names_the_nearest_and_the_forms(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown data 'cifr10'; did you mean cifar10 .*\.csv or \.jsonl"):
        open_data("cifr10")
    with pytest.raises(UserError, match=r"unknown data '/no/where'; no such file or folder; allowed: digits, "):
        open_data("/no/where")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="is a file and no known kind of data set; allowed: a folder"):
        open_data(str(tmp_path / "photo.jpg"))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_validation_fraction_outside_its_range_is_refused(make_folder: MakeFolder, fraction: float) -> None:
    with pytest.raises(UserError, match="lies between 0 and 1"):
        open_data(str(make_folder({"cat": 2})), val_fraction=fraction)


def test_draw_takes_its_share_of_every_stratum() -> None:
    strata = np.repeat([5, -1, 2, 7], [1, 2, 10, 1000])
    held_out = stratified_draw(strata, 0.1, seed=3)
    assert [int(held_out[strata == stratum].sum()) for stratum in (5, -1, 2, 7)] == [0, 1, 1, 100]
    assert not np.array_equal(held_out, stratified_draw(strata, 0.1, seed=4))


def test_fingerprint_is_of_the_data_and_not_of_their_place(make_folder: MakeFolder) -> None:
    counts = {"train/cat": 2, "val/cat": 1}
    first, second = make_folder(counts, "here"), make_folder(counts, "there")
    fingerprint = open_data(str(first)).fingerprint()
    assert fingerprint == open_data(str(second)).fingerprint()
    assert len(fingerprint) == 32
    (second / "train/cat/0.png").write_bytes(coloured_png(0) + b"x")
    assert open_data(str(second)).fingerprint() != fingerprint
    (first / "train/cat/0.png").rename(first / "train/cat/9.png")
    assert open_data(str(first)).fingerprint() != fingerprint


def test_fingerprint_follows_labels_and_array_contents() -> None:
    data = open_data("digits")
    before = data.fingerprint()
    assert before == open_data("digits").fingerprint()
    assert before != open_data("digits", classes=list("9876543210")).fingerprint()
    data.train.images[3, 2, 2] ^= 1
    assert data.fingerprint() != before


def test_many_files_are_listed_and_fingerprinted_quickly(tmp_path: Path) -> None:
    for index in range(10):
        folder = tmp_path / "train" / str(index)
        folder.mkdir(parents=True)
        for number in range(500):
            os.close(os.open(folder / f"{number}.png", os.O_CREAT))
    start = time.perf_counter()
    open_data(str(tmp_path)).fingerprint()
    assert time.perf_counter() - start < 2.0  # about 0.05 s on an idle machine
