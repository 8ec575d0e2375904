import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from residuum.data.sources import open_data
from residuum.data.sources.builtin import GARMENTS, read_idx
from residuum.errors import UserError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx_set(folder: Path, prefix: str, count: int, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(count * 6).reshape(count, 2, 3)
    for name, content in (
        (f"{prefix}-images-idx3-ubyte", images),
        (f"{prefix}-labels-idx1-ubyte", np.arange(count)),
    ):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(content)))
        else:
            (folder / name).write_bytes(idx(content))


def test_digits_are_scaled_and_divided_always_alike() -> None:
    data = open_data("digits")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1438, "test": 359}
    assert data.classes == tuple("0123456789")
    assert data.train.read(0, 1).shape == (8, 8, 1)
    assert max(data.train.read(i, 1).max() for i in range(20)) == 255
    names = [*data.splits["train"].names, *data.splits["test"].names]
    assert sorted(names) == sorted(f"digits[{index}]" for index in range(1797))
    counts = np.bincount(data.splits["test"].labels)
    assert counts.min() >= 35
    assert counts.max() <= 37


def test_digits_names_lead_to_the_images_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    original, split = load_digits(), open_data("digits").splits["test"]
    number = int(split.names[5].removeprefix("digits[").removesuffix("]"))
    assert split.labels[5] == original.target[number]
    np.testing.assert_allclose(split.read(5, 1)[..., 0] / 255, original.images[number] / 16, atol=0.002)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["", "raw", "FashionMNIST/raw", "FashionMNIST"])
def test_peers_8_idx_files_are_found_where_people_keep_them(tmp_path: Path, place: str, zipped: bool) -> None:
    for prefix, count in (("train", 4), ("t10k", 2)):
        write_idx_set(tmp_path / place, prefix, count, zipped)
    data = open_data("fashion-mnist", root=tmp_path)
    assert data.classes == GARMENTS
    assert data.splits["train"].labels.tolist() == [0, 1, 2, 3]
    assert data.splits["test"].read(1, 1)[..., 0].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert data.splits["test"].names[1] == "fashion-mnist/test[1]"


def test_half_an_idx_set_is_used_with_a_note(tmp_path: Path) -> None:
    write_idx_set(tmp_path, "train", 4, zipped=False)
    data = open_data("mnist", root=tmp_path)
    assert set(data.splits) == {"train"}
    assert f"{tmp_path} has no test files of mnist." in data.notes


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        idx(np.zeros((2, 3))),
        idx(np.zeros((2, 3, 3)))[:-1],
        struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31),
        struct.pack(">HBB3I", 0, 13, 3, 1, 1, 1) + bytes(4),
    ],
    ids=["empty", "cut header", "labels", "cut content", "absurd size", "floats"],
)
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    zipped = name.endswith(".gz")
    (tmp_path / name).write_bytes(gzip.compress(content)[:-9] if zipped else content)
    with pytest.raises(UserError, match="is not a sound IDX file"):
        read_idx(tmp_path / name, 3)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path, "train", 11, zipped=False)  # with a label 10
    with pytest.raises(UserError, match="does not fit"):
        open_data("mnist", root=tmp_path)


def test_real_fashion_mnist_files(shared_data: Path) -> None:
    data = open_data("fashion-mnist", root=shared_data / "fashion-mnist-mini")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 5000, "test": 1000}
    assert data.train.read(0, 1).shape == (28, 28, 1)
    assert np.bincount(data.train.labels).min() > 400


def test_cifar_comes_through_torchvision_which_checks_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        classes = ("airplane", "automobile")

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert (root, download) == (tmp_path, True)
            self.data = np.full((4 if train else 2, 32, 32, 3), 7, np.uint8)
            self.targets = [0, 1] * (2 if train else 1)

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stub)
    data = open_data("cifar10", root=tmp_path)
    assert data.classes == ("airplane", "automobile")
    assert data.splits["train"].labels.tolist() == [0, 1, 0, 1]
    assert data.splits["test"].read(0, 3).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("spec", "original"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")],
)
@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("wrong sum")])
def test_without_a_network_the_message_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spec: str,
    original: str,
    error: Exception,
) -> None:
    def fail(*args: object, **options: object) -> None:
        print("Failed to download (trying next)")
        raise error

    monkeypatch.setattr(torchvision.datasets, original, fail)
    with pytest.raises(UserError, match=rf"{spec} is not in .* \({error}\); bring its original files and pass --root"):
        open_data(spec)
    assert capsys.readouterr().out == ""


def test_downloads_go_to_the_cache_that_the_environment_names(
    data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: Path, download: bool) -> None:
        for prefix in ("train", "t10k"):
            write_idx_set(root / "MNIST/raw", prefix, 3, zipped=False)

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    assert len(open_data("mnist").train) == 3
    assert (data_cache / "MNIST/raw").is_dir()
