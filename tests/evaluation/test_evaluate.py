"""An evaluation equals scikit-learn's, counts every image once, and hides nothing it could not judge."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as reference
from torch import nn

from residuum.data.loaders import evaluation_loader
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import ArraySplit, FileSplit, NumberedNames, PackedNames
from residuum.data.workers import LoaderSettings
from residuum.distributed import World
from residuum.errors import UserError
from residuum.evaluation.evaluate import evaluate, predictor
from residuum.evaluation.scores import Evaluation
from residuum.evaluation.views import Predict
from residuum.records import plain

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
PREPROCESSING = Preprocessing(3, 6, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
WEIGHT = torch.randn(3 * 6 * 6, len(CLASSES), generator=torch.Generator().manual_seed(3)) / 10
COUNT = 53


def linear(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1) @ WEIGHT


def made_up(labels: np.ndarray | None = None) -> ArraySplit:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (COUNT, 6, 6, 3), dtype=np.uint8)
    if labels is None:
        labels = random.integers(0, len(CLASSES), COUNT)
    return ArraySplit(images, labels, NumberedNames("made up", COUNT))


def loader_of(split, batch_size: int = 16, world: World | None = None):
    settings = LoaderSettings(world=world or World(), kind="file")
    return evaluation_loader(split, PREPROCESSING, batch_size=batch_size, settings=settings)


def scored(split, predict: Predict = linear, batch_size: int = 16, **options) -> Evaluation:
    loader = loader_of(split, batch_size)
    return evaluate(predict, loader, classes=CLASSES, protocol="1-crop 6", **options)


def logits_of(split) -> torch.Tensor:
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    return linear(PREPROCESSING.normalise(images))


def test_an_evaluation_equals_scikit_learn() -> None:
    split = made_up()
    found, logits, names = scored(split), logits_of(split), list(range(len(CLASSES)))
    right = reference.accuracy_score(split.labels, logits.argmax(1))
    assert found.top1.value == found.score == pytest.approx(100 * right)
    top5 = reference.top_k_accuracy_score(split.labels, logits, k=5, labels=names)
    assert found.top5.value == pytest.approx(100 * top5)
    loss = reference.log_loss(split.labels, logits.double().softmax(1), labels=names)
    assert found.loss.value == pytest.approx(loss, rel=1e-5)
    report = reference.classification_report(
        split.labels, logits.argmax(1), target_names=CLASSES, output_dict=True, zero_division=np.nan
    )
    for row in found.per_class.records():
        expected = report[row["class"]]
        assert row["images"] == expected["support"]
        assert row["precision"] == pytest.approx(100 * expected["precision"])
        assert row["F1"] == pytest.approx(100 * expected["f1-score"])
    assert (found.images, found.protocol, found.bad, found.unknown) == (COUNT, "1-crop 6", (), 0)


def test_the_batch_size_changes_nothing() -> None:
    one, all_at_once = scored(made_up(), batch_size=1), scored(made_up(), batch_size=COUNT)
    assert one.loss.value == pytest.approx(all_at_once.loss.value)
    assert replace(one, loss=all_at_once.loss) == all_at_once


def test_an_evaluation_is_json_and_says_what_counts_in_a_few_lines() -> None:
    found = scored(made_up())
    assert json.loads(json.dumps(plain(found)))["top1"]["value"] == found.top1.value
    headline = found.headline()
    assert headline.title == "53 images, 1-crop 6"
    assert [row[0] for row in headline.rows] == [
        "top-1 accuracy",
        "top-1 error",
        "top-5 accuracy",
        "top-5 error",
        "loss",
    ]
    assert headline.notes == ()


def test_images_of_unknown_classes_and_unreadable_files_count_as_errors_and_are_named(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(10)]
    for index, name in enumerate(names):
        Image.new("RGB", (6, 6), (index, 0, 0)).save(tmp_path / name)
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "4.png").unlink()
    labels = np.array([0] * 8 + [-1, -1])
    always_ant = torch.eye(len(CLASSES))[0]
    found = scored(FileSplit(tmp_path, PackedNames(names), labels), lambda images: always_ant.repeat(len(images), 1))
    assert (found.images, found.unknown) == (10, 2)
    assert [name for name, _ in found.bad] == ["3.png", "4.png"]
    assert found.top1.value == found.top5.value == pytest.approx(60)
    assert found.loss.value == pytest.approx(math.log(math.e + len(CLASSES) - 1) - 1)
    assert found.per_class.rows[0] == ("ant", 8, 75, 75, 75)
    assert len(found.headline().notes) == 3


def test_a_split_without_a_readable_image_has_no_loss_and_no_right_answer(tmp_path: Path) -> None:
    found = scored(FileSplit(tmp_path, PackedNames(["gone.png"]), np.array([0])))
    assert found.top1.value == 0
    assert math.isnan(found.loss.value)


def test_several_labels_an_image_are_scored_by_average_precision_and_f1() -> None:
    labels = (np.random.default_rng(5).random((COUNT, len(CLASSES))) < 0.3).astype(np.uint8)
    split = made_up(labels)
    found, logits = scored(split, multi_label=True), logits_of(split)
    expected = reference.average_precision_score(labels, logits.sigmoid(), average="macro")
    assert found.mean_average_precision.value == found.score == pytest.approx(100 * expected)
    f1 = reference.f1_score(labels, logits.sigmoid() >= 0.5, average="micro")
    assert found.micro_f1.value == pytest.approx(100 * f1)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).float())
    assert found.loss.value == pytest.approx(loss.item(), rel=1e-5)
    assert found.top1 is None
    assert "average precision" in found.per_class.columns
    json.dumps(plain(found))


def test_an_unreadable_image_of_several_labels_counts_as_having_been_given_none(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        Image.new("RGB", (6, 6)).save(tmp_path / name)
    labels = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.uint8)
    split = FileSplit(tmp_path, PackedNames(["0.png", "1.png", "2.png"]), labels)
    answers = torch.tensor([[9.0, -9.0], [-9.0, 9.0]])
    found = evaluate(lambda images: answers, loader_of(split), classes=("ant", "bee"), protocol="", multi_label=True)
    # The two that were read are right; of the labels of the third neither is found.
    assert found.micro_f1.value == pytest.approx(100 * 2 * 2 / (2 + 4))
    assert [row[1] for row in found.per_class.rows] == [2, 2]
    assert found.loss.value == pytest.approx(math.log1p(math.exp(-9)), rel=1e-4)


def test_one_label_an_image_is_scored_by_a_model_of_several_as_rows_of_one() -> None:
    """A list without any `|` has one label a line, whatever the model was trained on."""
    labels = np.random.default_rng(5).integers(-1, len(CLASSES), COUNT)
    rows = np.zeros((COUNT, len(CLASSES)), np.uint8)
    rows[labels >= 0, labels[labels >= 0]] = 1
    assert scored(made_up(labels), multi_label=True) == scored(made_up(rows), multi_label=True)


def test_an_empty_split_and_other_classes_are_refused() -> None:
    with pytest.raises(UserError, match="no image"):
        scored(ArraySplit(np.empty((0, 6, 6, 3), np.uint8), np.empty(0, np.int64), NumberedNames("none", 0)))
    with pytest.raises(UserError, match=r"\(16, 3\)"):
        scored(made_up(), lambda images: linear(images)[:, :3])


def test_the_predictor_of_a_network_is_in_evaluation_mode_and_keeps_no_gradient() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict = predictor(network, torch.device("cpu"), torch.bfloat16)
    images = torch.randn(2, 3, 8, 8)
    logits = predict(images)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert torch.equal(logits, predict(images))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_two_processes_count_every_image_once_and_agree_with_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    alone = json.loads(json.dumps([plain(found) for found in every_evaluation(World())]))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    together = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in "01"]
    assert together[0] == together[1]
    for here, there in zip(alone, together[0], strict=True):
        assert here.pop("loss")["value"] == pytest.approx(there.pop("loss")["value"], nan_ok=True)
        assert here == there


def every_evaluation(world: World) -> list[Evaluation]:
    """A class a picture with some unknown, several classes a picture, and fewer pictures than processes."""
    random = np.random.default_rng(5)
    unknown = random.integers(-1, len(CLASSES), COUNT)
    several = (random.random((COUNT, len(CLASSES))) < 0.3).astype(np.uint8)
    missing = FileSplit(Path("nowhere"), PackedNames(["gone.png"]), np.array([0]))
    found = []
    for split in (made_up(unknown), made_up(several), missing):
        loader = loader_of(split, batch_size=7, world=world)
        multi_label = split.labels.ndim == 2
        found.append(evaluate(linear, loader, classes=CLASSES, protocol="", multi_label=multi_label, world=world))
    return found


if __name__ == "__main__":
    from residuum.distributed import process_group

    with process_group(torch.device("cpu")) as joined:
        results = json.dumps([plain(found) for found in every_evaluation(joined)])
    Path(sys.argv[1], f"{joined.rank}.json").write_text(results)
