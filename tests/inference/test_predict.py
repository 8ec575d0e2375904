"""Predictions come in order, in bounded memory, from the same numbers as an evaluation's, past any unreadable
file.
"""

import csv
import io
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from residuum.data.loaders import evaluation_loader
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import FileSplit, PackedNames
from residuum.data.workers import LoaderSettings
from residuum.errors import UserError
from residuum.evaluation.evaluate import predictor
from residuum.inference import predict as module
from residuum.inference.predict import Prediction, expand_paths, predict, write_csv, write_jsonl
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


def test_paths_are_files_folders_and_patterns_in_the_order_given(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.PNG", "b/deep/3.webp", "b/notes.txt", "b/.hidden.jpg", "a[1].jpg", "c.dat"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()

    def expand(*patterns: str) -> list[str]:
        found = expand_paths([tmp_path / pattern for pattern in patterns])
        return [str(path.relative_to(tmp_path)) for path in found]

    assert expand("b") == ["b/1.PNG", "b/2.jpg", "b/deep/3.webp"]
    assert expand("c.dat", "b/*.jpg") == ["c.dat", "b/2.jpg"]
    assert expand("a[1].jpg") == ["a[1].jpg"]
    assert expand("?") == expand("b")
    assert expand("**/*.webp") == ["b/deep/3.webp"]
    (tmp_path / "b" / "deep" / "loop").symlink_to(tmp_path / "b")
    assert expand("b") == ["b/1.PNG", "b/2.jpg", "b/deep/3.webp"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("gone.jpg", "does not exist"), ("*.gif", "nothing matches"), ("empty", "holds no images")],
)
def test_a_path_without_an_image_is_refused_before_anything_is_predicted(
    tmp_path: Path, pattern: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.jpg").touch()
    with pytest.raises(UserError, match=message):
        expand_paths([tmp_path / "there.jpg", tmp_path / pattern])


PREDICTIONS = (
    Prediction(Path("a,b.jpg"), ("ant", 'a "bee"'), (0.75, 0.25)),
    Prediction(Path("gone.jpg"), error="no such file"),
)


def test_json_lines_hold_each_file_with_its_classes_or_its_error() -> None:
    stream = io.StringIO()
    write_jsonl(PREDICTIONS, stream)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["predictions"][0] == {"label": "ant", "probability": 0.75}
    assert second == {"file": "gone.jpg", "predictions": [], "error": "no such file"}


def test_csv_has_one_row_a_file_and_a_column_for_errors() -> None:
    stream = io.StringIO()
    write_csv(PREDICTIONS, stream, top=3)
    first, second = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (first["file"], first["label"], first["probability"]) == ("a,b.jpg", "ant", "0.75")
    assert (first["label_2"], first["label_3"], first["error"]) == ('a "bee"', "", "")
    assert (second["label"], second["error"]) == ("", "no such file")


def test_a_file_name_that_is_no_unicode_is_written_escaped() -> None:
    strange = [Prediction(Path("caf\udce9.jpg"), ("ant",), (1.0,))]
    for write in (write_jsonl, lambda found, stream: write_csv(found, stream, top=1)):
        stream = io.StringIO()
        write(strange, stream)
        assert "caf\\" in stream.getvalue().encode("utf-8").decode()


def test_writers_write_as_predictions_come() -> None:
    stream = io.StringIO()

    def watched() -> Iterator[Prediction]:
        yield PREDICTIONS[0]
        assert "ant" in stream.getvalue()

    write_jsonl(watched(), stream)
