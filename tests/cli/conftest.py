"""A test module's `classifier`, saved and exported."""

from pathlib import Path

import exported_models
import pytest

from residuum.weights import Classifier, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, classifier: Classifier) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, classifier)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, classifier: Classifier) -> Path:
    pytest.importorskip("onnxruntime")
    return exported_models.export_onnx(classifier, tmp_path_factory.mktemp("exported") / "onnx")
