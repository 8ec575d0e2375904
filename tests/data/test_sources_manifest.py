import json
from pathlib import Path

import pytest
from image_bytes import coloured_png

from residuum.data.decoding import BadImage
from residuum.data.sources import open_data
from residuum.errors import UserError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for index in range(6):
        (tmp_path / f"pictures/{index}.png").write_bytes(coloured_png(index))
    return tmp_path


def manifest(folder: Path, text: str, name: str = "list.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_peers_8_csv_with_splits(images: Path) -> None:
    spec = manifest(
        images,
        "\ufeffpath,label,split,photographer\n"
        "pictures/0.png,cat,train,Ann\n"
        'pictures/1.png," dog, hairy",Training,Bo\n'
        "pictures/2.png,cat,valid,Ann\n",
    )
    data = open_data(spec)
    assert data.classes == ("cat", "dog, hairy")
    assert data.splits["train"].labels.tolist() == [0, 1]
    assert list(data.splits["val"].names) == ["pictures/2.png"]
    assert data.splits["val"].read(0, 3)[0, 0, 0] == 2


def test_json_lines_with_root_and_numbers_as_labels(images: Path, tmp_path: Path) -> None:
    lines = [{"path": f"{index}.png", "label": index % 2} for index in range(6)]
    spec = manifest(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n", "list.jsonl")
    data = open_data(spec, root=images / "pictures", val_fraction=0.34)
    assert data.classes == ("0", "1")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2}
    assert {data.train.read(i, 3)[0, 0, 0] for i in range(4)} < set(range(6))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_several_labels_make_it_multi_label(images: Path, kind: str) -> None:
    rows = [
        ("pictures/0.png", "cat|dog"),
        ("pictures/1.png", "dog"),
        ("pictures/2.png", ""),
        ("pictures/3.png", "cat"),
    ]
    splits = ["train", "train", "train", "test"]
    if kind == "csv":
        lines = [f"{path},{label},{split}" for (path, label), split in zip(rows, splits, strict=True)]
        text = "\n".join(["path,label,split", *lines])
    else:
        text = "\n".join(
            json.dumps({"path": path, "label": label.split("|") if label else [], "split": split})
            for (path, label), split in zip(rows, splits, strict=True)
        )
    data = open_data(manifest(images, text, f"list.{kind}"))
    assert data.multi_label
    assert data.train.labels.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert data.splits["test"].labels.tolist() == [[1, 0]]
    assert data.train.labels.dtype == "uint8"
    assert data.notes == ("test: no images of dog.",)


def test_multi_label_is_matched_to_a_model_and_divided(images: Path) -> None:
    text = "path,label\n" + "".join(f"pictures/{index}.png,cat|dog\n" for index in range(5))
    data = open_data(manifest(images, text), classes=["owl", "dog"])
    assert data.held_out("all")[1].labels.tolist() == [[0, 1]] * 5
    assert data.notes == (
        "The data: no images of owl.",
        "The data: not in the class list: cat (left out).",
        "The data have no splits; val was drawn: 1 of 5 images (20%, seed 0).",
    )


def test_repeated_and_missing_files_are_no_matter_for_the_list(images: Path) -> None:
    rows = "pictures/0.png,cat,train\npictures/0.png,cat,train\nnone.png,cat,train\n"
    data = open_data(manifest(images, "path,label,split\n" + rows))
    assert len(data.train) == 3
    with pytest.raises(BadImage, match=r"none\.png: no such file"):
        data.train.read(2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the header has no column label and no path"),
        ("file,label\na.png,cat\n", r"line 1: the header has no column path"),
        ("path,label\n", r"names no images; expected path,label"),
        ("path,label\na.png,cat\nb.png\n", r"line 3: not the header's 2 columns"),
        ("path,label\na.png,cat,dog\n", r"line 2: not the header's 2 columns"),
        ("path,label\na.png,cat\nb.png,\n", r"line 3: the label is empty"),
        ('path,label\n"a.png,cat\nb.png,dog\n', r"cannot read .*: unexpected end of data"),
        ("path,label\n,cat\n", r"line 2: the path is empty"),
        (
            "path,label,split\na.png,cat,train\nb.png,cat,tran\n",
            r"line 3: unknown split 'tran'; did you mean train",
        ),
        ("path,label,split\na.png,cat,train\nb.png,cat,\n", r"line 3: no split, but other lines have one"),
    ],
)
def test_csv_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(manifest(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no images"),
        ('{"path": "a.png", "label": "cat"}\n{"path": \n', r"line 2: not JSON"),
        ("[1]\n", r'line 1: expected an object with "path" and "label"'),
        ('{"path": "a.png"}\n', r'line 1: expected an object with "path" and "label"'),
        ('{"path": null, "label": "cat"}\n', r"line 1: the path is empty"),
        ('{"path": "a.png", "label": {"cat": 1}}\n', r"line 1: the label is an object"),
        ('{"path": "a.png", "label": null}\n', r"line 1: the label is empty"),
        (r'{"path": "a\u0000b.png", "label": "cat"}', r"line 1: the path 'a\\x00b\.png' has a character that no file"),
        (r'{"path": "a\ud800b.png", "label": "cat"}', r"line 1: the path 'a\\ud800b\.png' has a character that no"),
    ],
)
def test_json_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(manifest(tmp_path, text, "list.jsonl"))


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe\x00,cat\n")
    with pytest.raises(UserError, match="cannot read"):
        open_data(str(tmp_path / "list.csv"))
