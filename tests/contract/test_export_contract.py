"""Every network of the catalogue computes the same once it is exported, in every engine, for any number of images.

On small images, three classes, and with normalisations that have seen something. PyTorch's exporter takes 0.1 s a
layer: the networks of more than 60 layers, which repeat the units of the others, take minutes together, and are
exported by `make deep-exports`.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from residuum.inference.exported_program import open_program, save_program
from residuum.inference.openvino_core import openvino_core
from residuum.inference.parity import allowed_difference, parity_of
from residuum.models.catalogue import CATALOGUE, create_model, find
from residuum.models.shortcuts import SHORTCUTS

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

from residuum.inference.onnx_graph import onnx_graph  # noqa: E402

SIDE = {32: 16, 224: 32}
CHANNELS = {"lenet5": 1}
DEEP = re.compile(r".*(101|110|152|164|200|1001|1202)")
VARIANTS = [("resnet8", shortcut) for shortcut in SHORTCUTS] + [("preact_resnet8", shortcut) for shortcut in SHORTCUTS]
OTHERS = [
    "resnet8_bn_after_addition",
    "resnet8_relu_before_addition",
    "resnet8_relu_preact",
    "resnet8_bn_after_relu",
    "resnext29_2x4d",
    "torchvision/alexnet",
    "torchvision/googlenet",
    "torchvision/densenet121",
]


def network_with_statistics(name: str, side: int, channels: int, **options: object) -> nn.Module:
    """Newly initialised, with what its normalisations would have seen: else folding them would change nothing.

    In a deep one most units are above zero: else each layer makes a rounding a fifth larger, a hundred of them endless.
    """
    lift = 2.0 if DEEP.match(name) else 0.0
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, in_channels=channels, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over the batches seen
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, lift, std=0.2)
    with torch.no_grad():
        network.train()(torch.randn(8, channels, side, side))
    return network.eval()


def check(name: str, folder: Path, side: int, channels: int = 3, **options: object) -> None:
    network = network_with_statistics(name, side, channels, **options)
    model, head = onnx_graph(network, (channels, side, side))
    refuse_foldable(model)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    core = openvino_core(openvino)
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    save_program(network, (channels, side, side), folder / "model.pt2")
    program = open_program(folder / "model.pt2").module()
    images = np.random.default_rng(1).standard_normal((3, channels, side, side)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images)).numpy()
    allowed = allowed_difference(network, images, wanted)
    for part in (slice(0, 1), slice(0, 3)):
        (found,) = session.run(["logits"], {"images": images[part]})
        again = compiled({"images": images[part]})["logits"]
        with torch.inference_mode():
            third = program(torch.from_numpy(images[part])).numpy()
        for engine, logits in (("ONNX Runtime", found), ("OpenVINO", again), ("PyTorch", third)):
            row = parity_of(engine, len(logits), logits, wanted[part])
            assert row.difference < allowed, row
    if head is not None:
        (features,) = session.run(["features"], {"images": images})
        assert np.allclose(features.mean(axis=(2, 3)) @ head.weight.T + head.bias, wanted, atol=allowed * wanted.std())


def refuse_foldable(model) -> None:
    """No normalisation stands behind a convolution that nothing else reads."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    reads = [name for node in model.graph.node for name in node.input]
    left = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert [node.name for node in left if makers.get(node.input[0]) == "Conv" and reads.count(node.input[0]) == 1] == []


def side_of(name: str) -> int:
    return SIDE[find(name).task.input_size[1]]


@pytest.mark.parametrize("name", [name for name in CATALOGUE if not DEEP.match(name)])
def test_every_network_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, 32 if name == "lenet5" else side_of(name), CHANNELS.get(name, 3))


@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    not os.environ.get("RESIDUUM_DEEP_EXPORTS"), reason="takes minutes; RESIDUUM_DEEP_EXPORTS=1 runs it"
)
@pytest.mark.parametrize("name", [name for name in CATALOGUE if DEEP.match(name)])
def test_the_deep_networks_give_the_same_logits(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, side_of(name) // 2)


@pytest.mark.parametrize(("name", "shortcut"), VARIANTS)
def test_every_shortcut_gives_the_same_logits(name: str, shortcut: str, tmp_path: Path) -> None:
    check(name, tmp_path, 16, shortcut=shortcut)


@pytest.mark.parametrize("name", OTHERS)
def test_other_units_and_libraries_give_the_same_logits(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, 64 if "/" in name else 16)


@pytest.mark.parametrize("name", ["resnet18d", "seresnet18"])
def test_networks_of_timm_give_the_same_logits(name: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    check(f"timm/{name}", tmp_path, 64)


@pytest.mark.parametrize("normalisation", ["layer", "group", "none"])
def test_every_normalisation_gives_the_same_logits(normalisation: str, tmp_path: Path) -> None:
    check("resnet8", tmp_path, 16, normalisation=normalisation)
