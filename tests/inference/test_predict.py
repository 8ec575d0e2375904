"""Predictions come in order, in bounded memory, from the same numbers as an evaluation's, past any unreadable
file.
"""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from residuum.data.decoding import decode
from residuum.data.loaders import evaluation_loader
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import FileSplit, PackedNames
from residuum.data.workers import LoaderSettings
from residuum.errors import UserError
from residuum.evaluation.evaluate import predictor
from residuum.inference import predict as module
from residuum.inference.deployed import by_pytorch
from residuum.inference.features import features
from residuum.inference.predict import predict
from residuum.weights import Classifier

CLASSES = ("ant", "bee", "cat")
SIZE = 8


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    network(torch.randn(2, 3, SIZE, SIZE))
    mean_image = np.random.default_rng(2).random((3, SIZE, SIZE), dtype=np.float32)
    preprocessing = Preprocessing(3, SIZE, crop_pct=0.8, interpolation="bicubic", mean_image=mean_image)
    return Classifier(network, "made up", CLASSES, preprocessing)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twelve pictures of several sizes; the fourth is damaged, the eighth missing."""
    random = np.random.default_rng(1)
    paths = [tmp_path / f"{number:02}.png" for number in range(12)]
    for number, path in enumerate(paths):
        shape = (9 + number, 21 - number, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    paths[7].unlink()
    return paths


def test_files_are_seen_as_an_evaluation_sees_them(classifier: Classifier, files: list[Path]) -> None:
    names = PackedNames([path.name for path in files])
    split = FileSplit(files[0].parent, names, np.zeros(len(files), np.int64))
    loader = evaluation_loader(split, classifier.preprocessing, batch_size=5, settings=LoaderSettings(kind="file"))
    run = predictor(classifier.network, torch.device("cpu"), torch.float32)
    expected = {
        files[index]: dict(zip(CLASSES, row.tolist(), strict=True))
        for batch in loader.epoch(0)
        for index, row in zip(batch.indices, run(batch.images).softmax(1), strict=True)
    }
    found = list(predict(classifier, files, batch_size=5, precision="fp32"))
    assert [prediction.path for prediction in found] == files
    assert {p.path: dict(zip(p.labels, p.probabilities, strict=True)) for p in found if not p.error} == expected


def test_an_unreadable_file_is_a_prediction_that_says_why(classifier: Classifier, files: list[Path]) -> None:
    errors = {p.path: p.error for p in predict(classifier, files, batch_size=4) if p.error is not None}
    assert errors == {files[3]: "truncated", files[7]: "no such file"}
    assert [p.error for p in predict(classifier, [files[7]])] == ["no such file"]


def test_classes_are_ranked_and_cut_at_the_top(classifier: Classifier, files: list[Path]) -> None:
    (best,) = predict(classifier, files[:1], top=2)
    assert len(best.labels) == len(best.probabilities) == 2
    assert best.probabilities[0] >= best.probabilities[1]
    (everything,) = predict(classifier, files[:1], top=5)
    assert set(everything.labels) == set(CLASSES)
    assert sum(everything.probabilities) == pytest.approx(1)


def test_with_several_labels_an_image_each_class_has_a_probability_of_its_own(files: list[Path]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 3))
    nn.init.zeros_(network[1].weight)
    network[1].bias.data = torch.tensor([0.0, 4.0, 4.0])
    (found,) = predict(Classifier(network, "made up", CLASSES, Preprocessing(3, SIZE), multi_label=True), files[:1])
    assert found.labels == ("bee", "cat", "ant")
    assert found.probabilities == pytest.approx((0.982, 0.982, 0.5), abs=1e-3)


def test_an_endless_list_of_files_is_read_only_as_far_as_needed(classifier: Classifier, files: list[Path]) -> None:
    taken = itertools.count()

    def endless() -> Iterator[Path]:
        for path in itertools.cycle(files):
            next(taken)
            yield path

    predictions = predict(classifier, endless(), batch_size=4, workers=2)
    found = list(itertools.islice(predictions, 40))
    assert [prediction.path for prediction in found] == list(itertools.islice(itertools.cycle(files), 40))
    assert next(taken) <= 40 + 2 * 4 + 2
    del predictions
    assert not [thread for thread in threading.enumerate() if "residuum-decode" in thread.name]


def test_files_are_decoded_while_the_network_computes(
    classifier: Classifier, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    second_batch_decoded = threading.Event()
    decode = module.decode

    def watched(path: Path, name: str, channels: int) -> np.ndarray:
        if path == files[5]:
            second_batch_decoded.set()
        return decode(path, name, channels)

    monkeypatch.setattr(module, "decode", watched)
    waits = []
    classifier.network.register_forward_pre_hook(lambda *_: waits.append(second_batch_decoded.wait(timeout=10)))
    assert len(list(predict(classifier, files[:6], batch_size=3, workers=1))) == 6
    assert waits[0]


def test_features_are_what_the_classifier_reads(classifier: Classifier, files: list[Path]) -> None:
    found = list(predict(classifier, files, batch_size=5, precision="fp32", features=True))
    plain = list(predict(classifier, files, batch_size=5, precision="fp32"))
    assert found == plain
    views = [
        torch.from_numpy(classifier.preprocessing.view(decode(path, "", 3))).permute(2, 0, 1)
        for path, one in zip(files, plain, strict=True)
        if one.error is None
    ]
    images = classifier.preprocessing.normalise(torch.stack(views))
    expected = features(classifier.network, [images], torch.device("cpu"), torch.float32)
    rows = [one.features for one in found if one.features is not None]
    np.testing.assert_allclose(np.stack(rows), expected, rtol=1e-5)
    assert all(one.features is None for one in plain)
    assert {one.path for one in found if one.features is None} == {files[3], files[7]}


def test_a_model_without_features_is_refused_at_once(classifier: Classifier, files: list[Path]) -> None:
    bare = replace(by_pytorch(classifier, torch.device("cpu")), with_features=None)
    with pytest.raises(UserError, match="exported without features"):
        predict(bare, files, features=True)
