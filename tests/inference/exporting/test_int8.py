"""In 8-bit integers: the accuracy is kept, or it is refused with the way out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from residuum.data.decoding import BadImage
from residuum.data.sources import DataSet, open_data
from residuum.data.splits import Split, SubSplit
from residuum.errors import UserError
from residuum.inference import parity
from residuum.inference.description import checks_tables
from residuum.inference.engines import Engine, engines_at_hand, open_engine
from residuum.inference.evaluate import measure
from residuum.inference.export import Int8, export
from residuum.inference.exported import Exported
from residuum.weights import Classifier

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_keeps_the_accuracy_and_says_so(to: str, classifier: Classifier, digits: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    how = Int8(digits, count=60, kept=("conv1", "layer3.0"), max_drop=2.0)
    exported = export(classifier, tmp_path / "int8", to, digits, how)
    assert exported.number == "int8"
    assert [row["engine"] for row in exported.checks["worth"]] == [
        open_engine(exported, name).words for name in engines_at_hand(exported)
    ]
    (own,) = measure([classifier], digits, device="cpu", precision="fp32", workers=0)
    for row in exported.checks["worth"]:
        assert row["before"] == own.evaluation.top1.value
        assert row["drop"] == pytest.approx(row["before"] - row["after"])
        assert row["drop"] <= 2.0
        assert row["images"] == len(digits.splits["test"])
    config = json.loads((tmp_path / "int8" / "config.json").read_text())["residuum"]["export"]
    assert config["ranges_from"] == {"data": "digits", "split": "train", "images": 60, "unreadable": 0}
    assert config["float_layers"] == ["conv1", "layer3.0"]
    find = float_layers if to == "onnx" else float_layers_of_openvino
    assert find(exported.file) == {"conv1", "layer3.0.conv1", "layer3.0.conv2"}


def test_images_that_give_no_ranges_are_not_counted(
    classifier: Classifier, digits: DataSet, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    for image in sorted(photos.glob("*/*.png"))[::8]:
        image.write_bytes(b"no image")
    ranges = open_data(str(photos), classes=digits.classes)
    unreadable = sum(not _is_readable(ranges.splits["train"], index) for index in range(len(ranges.splits["train"])))
    exported = export(classifier, tmp_path / "int8", "openvino", digits, Int8(ranges, max_drop=100.0))
    config = json.loads((tmp_path / "int8" / "config.json").read_text())["residuum"]["export"]
    assert unreadable
    assert config["ranges_from"]["unreadable"] == unreadable
    assert config["ranges_from"]["images"] == len(ranges.splits["train"]) - unreadable
    assert exported.checks["notes"] == [f"{unreadable} images for the ranges could not be read and gave none"]


def _is_readable(split: Split, index: int) -> bool:
    try:
        split.read(index, 1)
    except BadImage:
        return False
    return True


def test_int8_is_not_judged_by_what_its_ranges_or_training_have_seen(
    classifier: Classifier, digits: DataSet, tmp_path: Path
) -> None:
    only = replace(digits, splits={"train": digits.splits["train"]})
    with pytest.raises(UserError, match=r"judged on the images of 'train' that its ranges come from; .*--data"):
        export(classifier, tmp_path / "int8", "onnx", only, Int8(only))
    changed = replace(classifier, provenance={"data": "digits", "fingerprint": "another"})
    with pytest.raises(UserError, match=r"divided otherwise: .* --val-fraction and --split-seed, .* --data"):
        export(changed, tmp_path / "int8", "onnx", digits, Int8(digits))
    exported = export(changed, tmp_path / "fp32", "onnx", digits)
    assert exported.checks["notes"] == [
        "digits changed since training or is divided otherwise: the model may have seen the images of 'test'"
    ]
    assert any("is divided otherwise" in note for note in checks_tables(exported.checks)[0].notes)


def test_int8_that_gives_no_numbers_is_refused(
    classifier: Classifier, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: onnx.ModelProto, *_: object) -> onnx.ModelProto:
        bias = next(one for one in model.graph.initializer if one.name == "fc.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.inf, np.float32), "fc.bias"))
        return model

    monkeypatch.setattr("residuum.inference.export.quantised", broken)
    with pytest.raises(UserError, match="int8 gives logits that are no numbers at batch 1"):
        export(classifier, tmp_path / "int8", "onnx", digits, Int8(digits, max_drop=100.0))
    assert [*tmp_path.iterdir()] == []


def test_few_images_fill_the_largest_batch_and_count_once(
    classifier: Classifier, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def watched(exported: Exported, name: str) -> Engine:
        engine = open_engine(exported, name)
        return replace(engine, run=lambda images: sizes.append(len(images)) or engine.run(images))

    monkeypatch.setattr(parity, "open_engine", watched)
    one = replace(digits, splits={"test": SubSplit(digits.splits["test"], np.array([3]))})
    exported = export(classifier, tmp_path / "out", "torch", one)
    assert sizes == [1] * 32 + [32]
    assert [row["images"] for row in exported.checks["parity"]] == [1, 1]


def float_layers(file: Path) -> set[str]:
    """The convolutions whose weights are not 8-bit integers."""
    model = onnx.load(file)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return {node.name.partition("/")[0] for node in convolutions if made_by.get(node.input[1]) != "DequantizeLinear"}


def float_layers_of_openvino(file: Path) -> set[str]:
    """The convolutions whose weights are not 8-bit integers, nor their inputs quantised."""
    layers = [node for node in openvino.Core().read_model(file).get_ops() if node.get_type_name() == "Convolution"]
    sources = {
        layer.get_friendly_name(): [side.get_node().get_type_name() for side in layer.input_values()]
        for layer in layers
    }
    return {
        name.partition("/")[0]
        for name, (images, weights) in sources.items()
        if images != "FakeQuantize" and weights == "Constant"
    }


def test_int8_that_loses_too_much_is_refused_with_the_way_out(
    classifier: Classifier, digits: DataSet, tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    with pytest.raises(
        UserError, match=r"int8 costs .* points of top-1 accuracy .* --keep-float .*--calibration-images"
    ):
        export(classifier, tmp_path / "int8", "onnx", digits, Int8(digits, count=20, max_drop=-100.0))
    assert [*tmp_path.iterdir()] == []


def test_a_layer_that_there_is_not_is_refused(classifier: Classifier, digits: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    with pytest.raises(UserError, match="unknown layer 'layer5'; did you mean layer"):
        export(classifier, tmp_path / "int8", "onnx", digits, Int8(digits, count=20, kept=("layer5",)))


def test_int8_of_pytorch_is_refused(classifier: Classifier, digits: DataSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="int8 is for onnx and openvino"):
        export(classifier, tmp_path / "int8", "torch", digits, Int8(digits))
