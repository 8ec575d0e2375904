"""Small exported models in the layout of `residuum.inference.exported`, made with the onnx package alone."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

CLASSES = ("dark", "light", "red")
SIDE = 8
FEATURES = 4


def export(folder: Path, *, shift: float = 0.0, classes: tuple[str, ...] = CLASSES, features: bool = True) -> Path:
    """An ONNX model that tells dark from light from red: a 1x1 convolution, its average, a linear layer."""
    folder.mkdir(parents=True, exist_ok=True)
    convolution = np.zeros((FEATURES, 3, 1, 1), np.float32)
    convolution[0, :, 0, 0], convolution[1, :, 0, 0], convolution[2, :, 0, 0] = -1, 1, (2, -1, -1)
    weight = np.zeros((len(classes), FEATURES), np.float32)
    weight[np.arange(3), np.arange(3)] = 4
    bias = np.full(len(classes), shift, np.float32)
    onnx.save(_graph(convolution, weight, bias, features), folder / "model.onnx")
    if features:
        save_file({"weight": weight, "bias": bias}, folder / "head.safetensors")
    (folder / "config.json").write_text(json.dumps(_config(classes)))
    return folder


def _graph(convolution: np.ndarray, weight: np.ndarray, bias: np.ndarray, features: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["images", "convolution"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    arrays = {"convolution": convolution, "weight": weight, "bias": bias}
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(weight)])]
    if features:
        outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES, SIDE, SIDE]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _config(classes: tuple[str, ...]) -> dict[str, object]:
    return {
        "architecture": "residuum_tiny",
        "num_classes": len(classes),
        "label_names": list(classes),
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE],
            "crop_pct": 1.0,
            "crop_mode": "center",
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "residuum": {
            "architecture": "tiny",
            "provenance": {"recipe": "quick", "data": "/secret/place/photos", "seed": 3, "scores": {"test": 91.5}},
            "export": {"to": "onnx", "number": "fp32", "checks": {"top-1 agreement": "100.00 %"}},
        },
    }
