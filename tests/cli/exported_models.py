"""An exported model in the layout that `read_exported` reads, made from a network."""

from pathlib import Path

import pytest
import torch

from residuum.files import read_json, write_json
from residuum.model_config import CONFIG, SECTION
from residuum.weights import Classifier, save_model


def export_onnx(classifier: Classifier, folder: Path) -> Path:
    """The folder, which then holds `model.onnx` beside the config of the model."""
    pytest.importorskip("onnxscript")
    save_model(folder, classifier)
    (folder / "model.safetensors").unlink()
    handling = classifier.preprocessing
    images = torch.zeros(2, handling.channels, handling.size, handling.size)
    torch.onnx.export(
        classifier.network.eval(),
        (images,),
        str(folder / "model.onnx"),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        external_data=False,
        verbose=False,
    )
    config = read_json(folder / CONFIG)
    config[SECTION] = {**config.get(SECTION, {}), "export": {"to": "onnx", "number": "fp32", "checks": {}}}
    write_json(folder / CONFIG, config)
    return folder
