"""An exported model in the layout that `read_exported` reads, made from a network."""

from pathlib import Path

import pytest
from safetensors.numpy import save

from residuum.files import read_json, write_json
from residuum.inference.exported import HEAD
from residuum.model_config import CONFIG, EXPORT, SECTION
from residuum.weights import Classifier, save_model


def export_onnx(classifier: Classifier, folder: Path) -> Path:
    """The folder, with `model.onnx` beside the config of the model; unchecked."""
    pytest.importorskip("onnxscript")
    from residuum.inference.onnx_graph import onnx_graph

    save_model(folder, classifier)
    (folder / "model.safetensors").unlink()
    handling = classifier.preprocessing
    graph, head = onnx_graph(classifier.network, (handling.channels, handling.size, handling.size))
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    if head is not None:
        (folder / HEAD).write_bytes(save(head._asdict()))
    config = read_json(folder / CONFIG)
    config[SECTION] = {**config.get(SECTION, {}), EXPORT: {"to": "onnx", "number": "fp32", "checks": {}}}
    write_json(folder / CONFIG, config)
    return folder
