"""A model is measured on data of either kind of label, as far as it can answer for them."""

import numpy as np
import pytest
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.errors import UserError
from residuum.inference.evaluate import evaluate
from residuum.weights import Classifier

CLASSES = ("ant", "bee", "cat")


def data(labels: np.ndarray) -> DataSet:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    split = ArraySplit(images, labels, NumberedNames("made up", len(labels)))
    return DataSet("made up", CLASSES, {"test": split}, multi_label=labels.ndim == 2)


def model(multi_label: bool) -> Classifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, len(CLASSES)))
    return Classifier(network, "made up", CLASSES, Preprocessing(3, 8), multi_label=multi_label)


def test_one_label_an_image_is_enough_for_a_model_of_several() -> None:
    found = evaluate(model(multi_label=True), data(np.array([0, 1, 2, -1])), workers=0, device="cpu")
    assert found.images == 4
    assert found.mean_average_precision is not None
    assert [row[1] for row in found.per_class.rows] == [1, 1, 1]


def test_several_labels_an_image_are_refused_for_a_model_of_one() -> None:
    with pytest.raises(UserError, match="several labels") as refusal:
        evaluate(model(multi_label=False), data(np.eye(3, dtype=np.uint8)), workers=0, device="cpu")
    assert "\n" not in str(refusal.value)
