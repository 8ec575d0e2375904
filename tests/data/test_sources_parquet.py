import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_bytes import coloured_png

from residuum.data.decoding import BadImage
from residuum.data.sources import open_data
from residuum.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(
    file: Path, labels: Any, *, names: list[str] | None = None, columns: tuple[str, str] = ("image", "label")
) -> Path:
    """A parquet file in the Hub's layout; image i has shade i."""
    images = [{"bytes": coloured_png(index), "path": f"{index}.png"} for index in range(len(labels))]
    table = pa.table(dict(zip(columns, (images, labels), strict=True)))
    if names is not None:
        feature: dict[str, Any] = {"names": names, "_type": "ClassLabel"}
        if isinstance(labels[0], list):
            feature = {"feature": feature, "_type": "List"}
        info = {"info": {"features": {columns[0]: {"_type": "Image"}, columns[1]: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)
    return file


def test_real_cifar_in_the_hub_layout(shared_data: Path) -> None:
    data = open_data(str(shared_data / "cifar10-mini"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4000, "test": 1000}
    assert data.classes[3] == "cat"
    images = np.stack([data.splits["test"].read(index, 3) for index in range(1000)])
    assert images.shape == (1000, 32, 32, 3)
    assert data.splits["test"].probe(999) == (32, 32, "RGB")
    np.testing.assert_allclose(images.mean((0, 1, 2)) / 255, (0.49, 0.48, 0.45), atol=0.02)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        ("plain_text/train/0000.parquet", "plain_text/val/0000.parquet"),
        ("train.parquet", "valid.parquet"),
    ],
)
def test_peers_8_splits_are_told_by_the_names_of_files_and_folders(tmp_path: Path, train: str, val: str) -> None:
    write(tmp_path / train, [2, 0, 1], names=["zebra", "ape", "cat"])
    write(tmp_path / val, [1, 1, 2], names=["zebra", "ape", "cat"])
    data = open_data(str(tmp_path))
    assert data.classes == ("zebra", "ape", "cat")  # the order that the data define
    assert data.splits["train"].labels.tolist() == [2, 0, 1]
    assert data.splits["val"].labels.tolist() == [1, 1, 2]
    assert [data.splits["val"].read(i, 3)[0, 0, 0] for i in range(3)] == [0, 1, 2]
    assert data.splits["val"].names[2] == "val[2]"
    assert data.notes == ("val: no images of zebra.",)


def test_shards_of_a_split_follow_one_another(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", ["dog"] * 3)
    write(tmp_path / "train-00001-of-00002.parquet", ["cat"] * 2)
    data = open_data(str(tmp_path))
    assert data.train.labels.tolist() == [1, 1, 1, 0, 0]
    assert [data.train.read(i, 3)[0, 0, 0] for i in range(5)] == [0, 1, 2, 0, 1]


def test_single_file_without_a_split_is_divided(tmp_path: Path) -> None:
    data = open_data(str(write(tmp_path / "animals.parquet", [0, 1] * 5, columns=("img", "fine_label"))))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 2}
    assert data.classes == ("0", "1")


def test_labels_may_be_numbers_strings_lists_or_absent(tmp_path: Path) -> None:
    numbers = open_data(str(write(tmp_path / "a/train.parquet", [10, 9, None, -1])))
    assert numbers.classes == ("9", "10")
    assert numbers.train.labels.tolist() == [1, 0, -1, -1]
    assert numbers.notes == ("train: 2 images without a label.",)
    lists = open_data(str(write(tmp_path / "b/train.parquet", [[0, 2], [], [1]], names=["x", "y", "z"])))
    assert lists.multi_label
    assert lists.train.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    strings = open_data(str(write(tmp_path / "c/train.parquet", [["dog"], ["cat", "dog"]])))
    assert strings.train.labels.tolist() == [[0, 1], [1, 1]]


def test_row_without_an_image_is_a_bad_image(tmp_path: Path) -> None:
    images = [{"bytes": coloured_png(1), "path": None}, {"bytes": None, "path": "gone.png"}, None]
    pq.write_table(pa.table({"image": images, "label": [0, 0, 0]}), tmp_path / "train.parquet")
    train = open_data(str(tmp_path)).train
    assert train.read(0, 3)[0, 0, 0] == 1
    for index in (1, 2):
        with pytest.raises(BadImage, match=rf"train\[{index}\]: empty"):
            train.read(index, 3)


def test_unpacked_once_and_again_when_the_file_changed(tmp_path: Path, data_cache: Path) -> None:
    file = write(tmp_path / "train.parquet", [0, 1])
    first = open_data(str(file)).fingerprint()
    unpacked = list((data_cache / "unpacked").glob("*.bin"))
    changed = unpacked[0].stat().st_mtime_ns
    assert open_data(str(file)).fingerprint() == first
    assert unpacked[0].stat().st_mtime_ns == changed
    write(tmp_path / "train.parquet", [0, 1, 1])
    assert len(open_data(str(file)).held_out("all")[1]) == 3
    assert len(list((data_cache / "unpacked").iterdir())) == 4  # two files a version, nothing half-written


def test_split_handed_to_a_worker_is_small_and_reads_on(tmp_path: Path) -> None:
    train = open_data(str(write(tmp_path / "train.parquet", [0] * 200))).train
    train.read(0, 3)
    pickled = pickle.dumps(train)
    assert len(pickled) < 6_000
    assert pickle.loads(pickled).read(199, 3)[0, 0, 0] == 199


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (
            ("picture", "label"),
            [0],
            "has the columns picture, label; expected image or img and label or labels",
        ),
        (("image", "caption"), ["a"], "has the columns image, caption"),
        (("image", "label"), [0.5], "holds double; expected whole numbers or strings"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    tmp_path: Path, columns: tuple[str, str], labels: list[Any], message: str
) -> None:
    write(tmp_path / "train.parquet", labels, columns=columns)
    with pytest.raises(UserError, match=message):
        open_data(str(tmp_path))


def test_what_is_no_parquet_or_has_no_image_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match="cannot read the parquet files of train"):
        open_data(str(tmp_path / "train.parquet"))
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="holds string; expected encoded images as bytes"):
        open_data(str(tmp_path))
    write(tmp_path / "train.parquet", [0, 5], names=["a", "b"])
    with pytest.raises(UserError, match="label 5 is beyond its 2 class names"):
        open_data(str(tmp_path))


def test_shards_must_have_the_same_columns_and_a_label_somewhere(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", [None, None])
    with pytest.raises(UserError, match=r"no image of .* has a label"):
        open_data(str(tmp_path))
    write(tmp_path / "train-1.parquet", [0], columns=("image", "caption"))
    with pytest.raises(UserError, match="has the columns image, caption"):
        open_data(str(tmp_path))


def test_several_sets_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for name in ("cropped", "full"):
        write(tmp_path / name / "train-00000-of-00001.parquet", [0, 1])
    with pytest.raises(UserError, match="holds several data sets: cropped, full; give the folder of one"):
        open_data(str(tmp_path))
    assert len(open_data(str(tmp_path / "full")).train) == 2


def test_hub_data_are_downloaded_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data/train-00000-of-00001.parquet", ["cat", "dog"])
    asked = []

    def download(repo: str, **options: Any) -> str:
        asked.append((repo, options["revision"], options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert open_data("hf:zoo/animals").classes == ("cat", "dog")
    assert len(open_data("hf:zoo/animals/data").train) == 2
    assert asked == [("zoo/animals", None, ["*.parquet"]), ("zoo/animals", None, ["data/*.parquet"])]


def test_hub_data_without_parquet_are_taken_from_the_hubs_own_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "converted/default/train/0000.parquet", ["cat", "dog"])
    (tmp_path / "plain").mkdir()
    places = {None: "plain", "refs/convert/parquet": "converted"}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repo, revision, **options: str(tmp_path / places[revision]),
    )
    assert len(open_data("hf:zoo/animals").train) == 2
    places["refs/convert/parquet"] = "plain"
    with pytest.raises(UserError, match="hf:zoo/animals holds no parquet files"):
        open_data("hf:zoo/animals")


def test_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=r"cannot download hf:zoo/animals \(no route to host\); check the name"):
        open_data("hf:zoo/animals")
    for wrong in ("hf:", "hf:animals", "hf:a/b/c/d", "hf:a/b/..", "hf:a b/c"):
        with pytest.raises(UserError, match="expected hf:owner/name"):
            open_data(wrong)


def test_absent_packages_are_named_with_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "train.parquet", [0, 1])
    for module in ("pyarrow", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "residuum.data.sources.parquet", raising=False)
    with pytest.raises(UserError, match=r"needs pyarrow, .* pip install 'residuum\[hub\]'"):
        open_data(str(file))
    with pytest.raises(UserError, match=r"needs huggingface_hub, .* pip install 'residuum\[hub\]'"):
        open_data("hf:zoo/animals")
