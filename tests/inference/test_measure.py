"""Models measured together: each as alone, their average as by hand, and an image decoded once for all."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.errors import UserError
from residuum.evaluation.views import Protocol
from residuum.inference.calibrate import calibrate
from residuum.inference.evaluate import Measured, measure
from residuum.inference.predict import predict
from residuum.model_config import read_temperature, store_temperature
from residuum.weights import Classifier, load, save_model

CLASSES = ("ant", "bee", "cat", "dog")
COUNT = 403


def linear(seed: int, size: int, channels: int = 3, classes: tuple[str, ...] = CLASSES, **options) -> Classifier:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(channels * size**2, len(classes))
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / size
    layer.bias.data.zero_()
    preprocessing = Preprocessing(channels, size, mean=(0.3,) * channels, std=(0.2,) * channels)
    return Classifier(nn.Sequential(nn.Flatten(), layer), f"linear {seed}", classes, preprocessing, **options)


class Counting(ArraySplit):
    """Counts how often each image is read."""

    reads: ClassVar[Counter[int]] = Counter()

    def read(self, index: int, channels: int) -> np.ndarray:
        self.reads[index] += 1
        return super().read(index, channels)


@pytest.fixture
def dataset() -> DataSet:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 12, 12, 3), dtype=np.uint8)
    labels = random.integers(0, len(CLASSES), COUNT)
    Counting.reads.clear()
    split = Counting(images, labels, NumberedNames("made up", COUNT))
    return DataSet("made up", CLASSES, {"val": split, "test": split}, multi_label=False)


def measured(classifiers: list[Classifier], dataset: DataSet, **options) -> list[Measured]:
    return measure(classifiers, dataset, device="cpu", precision="fp32", workers=2, batch_size=32, **options)


def test_members_of_any_size_and_order_of_classes_are_scored_as_alone(dataset: DataSet) -> None:
    members = [linear(0, 12), linear(1, 8), linear(2, 12, classes=CLASSES[::-1]), linear(3, 8)]
    together = measured(members, dataset, ensemble=True)
    assert len(together) == 5
    assert set(Counting.reads.values()) == {1}
    for member, found in zip(members, together, strict=False):
        (alone,) = measured([member], dataset)
        assert alone.evaluation == found.evaluation
        assert np.array_equal(alone.answers.losses, found.answers.losses)
    assert together[-1].evaluation.protocol == "ensemble of 4, 1-crop 12 + 1-crop 8"


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_an_ensemble_is_the_average_of_its_members(dataset: DataSet, average: str) -> None:
    members = [linear(seed, 12) for seed in range(3)]
    found = measured(members, dataset, ensemble=True, protocol=Protocol(average=average))[-1]
    pixels = torch.from_numpy(dataset.splits["test"].images).permute(0, 3, 1, 2)
    logits = torch.stack([member.network(member.preprocessing.normalise(pixels)) for member in members]).double()
    expected = logits.mean(0).softmax(1) if average == "logits" else logits.softmax(2).mean(0)
    truth = torch.from_numpy(dataset.splits["test"].labels)
    assert np.array_equal(found.answers.predictions, expected.argmax(1).numpy())
    assert found.answers.confidences == pytest.approx(expected.amax(1).detach().numpy(), rel=1e-4)
    losses = -expected.gather(1, truth[:, None])[:, 0].log()
    assert found.answers.losses == pytest.approx(losses.detach().numpy(), rel=1e-3, abs=1e-4)


def test_grey_and_colour_models_look_at_the_same_images(dataset: DataSet) -> None:
    members = [linear(0, 12), linear(1, 12, channels=1)]
    together = measured(members, dataset)
    assert together[1].evaluation == measured(members[1:], dataset)[0].evaluation


def test_a_network_of_one_input_size_is_refused_at_many_scales(dataset: DataSet) -> None:
    with pytest.raises(UserError, match="fully convolutional"):
        measured([linear(0, 12)], dataset, protocol=Protocol("multi-scale"))
    features = nn.Conv2d(3, 3, 3, padding=1)
    head = (nn.Flatten(), nn.Linear(3, 4))
    for pool in (nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(1)):
        network = nn.Sequential(features, pool, nn.Flatten(), nn.Linear(3 if "Max" in str(pool) else 12, 4))
        with pytest.raises(UserError, match="fully convolutional"):
            measured([replace(linear(0, 12), network=network)], dataset, protocol=Protocol("multi-scale"))
    averaged = replace(linear(0, 12), network=nn.Sequential(features, nn.AdaptiveAvgPool2d(1), *head))
    assert measured([averaged], dataset, protocol=Protocol("multi-scale"))[0].evaluation.images == COUNT


def test_models_of_other_classes_are_refused(dataset: DataSet) -> None:
    other = linear(0, 12, classes=("ant", "bee", "cat", "elk"))
    with pytest.raises(UserError, match="same classes"):
        measured([linear(0, 12), other], dataset)


def too_sure(dataset: DataSet, factor: float, **options) -> Classifier:
    """A model whose logits are `factor` times those by which the labels were drawn."""
    classifier, split = linear(4, 12, **options), dataset.splits["test"]
    pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    with torch.no_grad():
        shares = classifier.network(classifier.preprocessing.normalise(pixels)).softmax(1)
        split.labels[:] = torch.multinomial(shares, 1, generator=torch.Generator().manual_seed(0))[:, 0].numpy()
        for parameter in classifier.network.parameters():
            parameter *= factor
    return classifier


def test_a_fitted_temperature_lowers_the_loss_and_moves_no_answer(dataset: DataSet) -> None:
    classifier = too_sure(dataset, 8.0)
    temperature = calibrate(classifier, dataset, "val", device="cpu", precision="fp32", batch_size=8)
    assert temperature == pytest.approx(8, rel=0.25)
    before, after = measured([classifier, replace(classifier, temperature=temperature)], dataset)
    assert after.evaluation.loss.value < before.evaluation.loss.value
    assert after.evaluation.calibration_error.value < before.evaluation.calibration_error.value
    assert np.array_equal(before.answers.predictions, after.answers.predictions)
    for other in (0.9, 1.1):
        (near,) = measured([replace(classifier, temperature=temperature * other)], dataset)
        assert near.evaluation.loss.value > after.evaluation.loss.value
    # An earlier temperature has no part in the next fit.
    again = replace(classifier, temperature=5.0)
    assert calibrate(again, dataset, "val", device="cpu", precision="fp32") == pytest.approx(temperature)


def test_a_temperature_is_not_fitted_on_what_training_has_seen(dataset: DataSet) -> None:
    seen = replace(dataset, splits={**dataset.splits, "train": dataset.splits["val"]})
    for split in ("train", "all"):
        with pytest.raises(UserError, match="training has not seen"):
            calibrate(linear(0, 12), seen, split)
    trained_here = {"data": "made up", "fingerprint": "another division"}
    with pytest.raises(UserError, match="divided otherwise"):
        calibrate(linear(0, 12, provenance=trained_here), dataset, "val", device="cpu")
    classifier = too_sure(dataset, 2.0)
    whole = {"data": "made up", "fingerprint": dataset.fingerprint()}
    assert calibrate(replace(classifier, provenance=whole), dataset, "val", device="cpu") > 0


def test_a_temperature_of_several_labels_is_fitted_as_it_is_applied(dataset: DataSet) -> None:
    several, split = too_sure(dataset, 2.0, multi_label=True), dataset.splits["test"]
    rows = np.eye(len(CLASSES), dtype=np.uint8)[split.labels]
    as_rows = ArraySplit(split.images, rows, split.names)
    both = [dataset, replace(dataset, splits={"val": as_rows, "test": as_rows}, multi_label=True)]
    fitted = [calibrate(several, data, "val", device="cpu", precision="fp32") for data in both]
    assert fitted[0] == pytest.approx(fitted[1])
    with pytest.raises(UserError, match="several labels"):
        calibrate(linear(0, 12), both[1], "val")


def test_images_that_determine_no_temperature_are_refused(dataset: DataSet) -> None:
    classifier = linear(0, 12)
    (found,) = measured([classifier], dataset)
    dataset.splits["test"].labels[:] = found.answers.predictions  # every answer is right
    with pytest.raises(UserError, match="determine no temperature"):
        calibrate(classifier, dataset, "val", device="cpu", precision="fp32")


def test_classes_of_the_same_name_keep_their_order_or_are_refused(dataset: DataSet) -> None:
    twice = ("crane", "bee", "crane", "dog")
    same = replace(dataset, classes=twice)
    (found,) = measured([linear(0, 12, classes=twice)], same)
    (plain,) = measured([linear(0, 12)], dataset)
    assert np.array_equal(found.answers.predictions, plain.answers.predictions)
    with pytest.raises(UserError, match="'crane'"):
        measured([linear(0, 12, classes=("bee", "crane", "crane", "dog"))], same)


def test_a_temperature_is_kept_with_the_model_and_used_wherever_it_predicts(tmp_path: Path) -> None:
    from PIL import Image

    from residuum.models.catalogue import create_model

    torch.manual_seed(0)
    network = create_model("resnet8", num_classes=4)
    save_model(tmp_path / "model", Classifier(network, "resnet8", CLASSES, Preprocessing(3, 32)))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    assert load(tmp_path / "model").temperature == 1.0
    (before,) = predict(load(tmp_path / "model"), [tmp_path / "a.png"], device="cpu", precision="fp32")
    store_temperature(tmp_path / "model", 2.5, {"split": "val"})
    assert read_temperature(tmp_path / "model") == (2.5, {"split": "val"})
    warm = load(tmp_path / "model")
    assert warm.temperature == 2.5
    (after,) = predict(warm, [tmp_path / "a.png"], device="cpu", precision="fp32")
    assert after.labels == before.labels
    expected = np.power(before.probabilities, 1 / 2.5)
    assert after.probabilities == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert torch.equal(warm.network.fc.weight, network.fc.weight)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-300, 1e60, float("nan"), float("inf"), "hot", True, None])
def test_a_temperature_that_is_none_is_refused(tmp_path: Path, value: object) -> None:
    from residuum.models.catalogue import create_model

    network = create_model("resnet8", num_classes=4)
    save_model(tmp_path / "model", Classifier(network, "resnet8", CLASSES, Preprocessing(3, 32)))
    store_temperature(tmp_path / "model", value, {})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="temperature"):
        load(tmp_path / "model")
