"""A small network that knows digits, and its exports."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet, open_data
from residuum.inference import parity
from residuum.inference.export import export
from residuum.inference.exported import Exported
from residuum.models.catalogue import create_model
from residuum.weights import Classifier


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return open_data("digits")


@pytest.fixture(scope="session")
def classifier(digits: DataSet) -> Classifier:
    """A small residual network that knows digits: 30 steps, with a mean image and a temperature."""
    torch.manual_seed(0)
    train = digits.splits["train"]
    views = np.stack([train.read(index, 1) for index in range(len(train))])
    side = views.shape[1]
    mean_image = (views.mean(axis=0).transpose(2, 0, 1) / 255).astype(np.float32)
    handling = Preprocessing(1, side, mean=(0.3,), std=(0.3,), mean_image=mean_image)
    network = create_model("resnet8", num_classes=10, in_channels=1)
    images, labels = torch.from_numpy(handling.normalise_views(views)), torch.from_numpy(train.labels).long()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(30):
        rows = torch.arange(step * 64, step * 64 + 64) * 7 % len(images)
        optimiser.zero_grad()
        nn.functional.cross_entropy(network.train()(images[rows]), labels[rows]).backward()
        optimiser.step()
    facts = {"data": "digits", "fingerprint": digits.fingerprint()}
    return Classifier(network.eval(), "resnet8", digits.classes, handling, provenance=facts, temperature=1.5)


@pytest.fixture(scope="session")
def exports(classifier: Classifier, digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """By target: each once, in float32."""
    folder = tmp_path_factory.mktemp("exports")
    return {to: export(classifier, folder / to, to, digits) for to in ("onnx", "openvino", "torch")}


@pytest.fixture(scope="session")
def images(classifier: Classifier, digits: DataSet) -> np.ndarray:
    return parity.real_images(digits.splits["test"], classifier.preprocessing, 40)


@pytest.fixture
def photos(digits: DataSet, tmp_path: Path) -> Path:
    """Digits as files in a private folder, 4 of each class, without splits."""
    images = digits.splits["train"]
    for index in range(200):
        folder = tmp_path / "secret" / "cifar10" / digits.classes[images.labels[index]]
        folder.mkdir(parents=True, exist_ok=True)
        if len([*folder.iterdir()]) < 4:
            Image.fromarray(images.read(index, 1)[:, :, 0]).save(folder / f"{index}.png")
    return tmp_path / "secret" / "cifar10"
