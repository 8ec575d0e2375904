"""An export is the network, or it is not handed over: written whole, checked on real images."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet, open_data
from residuum.errors import UserError
from residuum.inference import engines, parity
from residuum.inference.calibrate import is_divided_otherwise
from residuum.inference.deployed import deploy
from residuum.inference.engines import engines_at_hand, open_engine
from residuum.inference.evaluate import measure
from residuum.inference.export import Int8, export
from residuum.inference.exported import BESIDE, FILES, HEAD, Exported, export_folder, read_exported, read_head
from residuum.inference.predictors import open_model
from residuum.model_config import EXPORTED_FILES
from residuum.models.catalogue import create_model
from residuum.pretrained import load_weights
from residuum.weights import Classifier, load, save_model

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


ROOM = 1e-5


def logits_of(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return classifier.network(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_every_engine_gives_the_network_s_logits_for_any_number_of_images(
    to: str, exports: dict[str, Exported], classifier: Classifier, images: np.ndarray
) -> None:
    wanted = logits_of(classifier, images)
    for name in engines_at_hand(exports[to]):
        engine = open_engine(exports[to], name)
        for count in (1, 2, 7, 40):
            assert np.abs(engine(images[:count]) - wanted[:count]).max() < ROOM * wanted.std(), (name, count)


def test_what_was_checked_stands_in_the_folder(exports: dict[str, Exported]) -> None:
    for exported in exports.values():
        checks = read_exported(exported.file.parent).checks
        assert checks["data"] == "digits"
        assert checks["split"] == "test"
        assert checks["protocol"] == "1-crop 8"
        assert checks["notes"] == []
        assert [row["batch"] for row in checks["parity"]] == [1, 32] * len(engines_at_hand(exported))
        assert all(row["difference"] < parity.TOLERANCE and row["agreement"] == 100 for row in checks["parity"])
        assert all(row["images"] == parity.IMAGES for row in checks["parity"])


def test_the_folder_has_all_that_the_run_had(exports: dict[str, Exported], classifier: Classifier) -> None:
    for exported in exports.values():
        assert exported.preprocessing == classifier.preprocessing
        assert exported.classes == classifier.classes
        assert exported.temperature == classifier.temperature
        assert exported.provenance == classifier.provenance


def test_probabilities_have_the_temperature(
    exports: dict[str, Exported], classifier: Classifier, digits: DataSet
) -> None:
    handling = classifier.preprocessing
    views = np.stack([handling.view(digits.splits["test"].read(index, 1)) for index in range(5)])
    logits = torch.from_numpy(logits_of(classifier, handling.normalise_views(views)))
    wanted = (logits / classifier.temperature).softmax(dim=1).numpy()
    for exported in exports.values():
        assert np.allclose(deploy(exported.file.parent).probabilities(views), wanted, atol=1e-5)


def test_an_evaluation_says_of_an_export_what_it_says_of_the_run(
    exports: dict[str, Exported], classifier: Classifier, digits: DataSet
) -> None:
    models = [classifier, *exports.values()]
    own, *others = measure(models, digits, device="cpu", precision="fp32", workers=0)
    for other in others:
        assert other.evaluation.top1 == own.evaluation.top1
        assert np.allclose(other.answers.losses, own.answers.losses, atol=1e-4)
        assert np.array_equal(other.answers.predictions, own.answers.predictions)


def test_features_and_the_head_make_the_logits(
    exports: dict[str, Exported], classifier: Classifier, images: np.ndarray
) -> None:
    for to in ("onnx", "openvino"):
        head = read_head(exports[to])
        assert head is not None
        for name in engines_at_hand(exports[to]):
            engine = open_engine(exports[to], name)
            assert engine.features is not None
            logits, features = engine.features(images)
            assert features.shape[:2] == (40, 64)
            assert np.allclose(logits, logits_of(classifier, images), atol=1e-4)
            assert np.allclose(features.mean(axis=(2, 3)) @ head[0].T + head[1], logits, atol=1e-4)
    assert read_head(exports["torch"]) is None


def test_a_network_without_such_a_head_has_none(digits: DataSet, tmp_path: Path) -> None:
    network = create_model("lenet5", num_classes=10, in_channels=1).eval()
    exported = export(
        Classifier(network, "lenet5", digits.classes, Preprocessing(1, 32, mean=(0.3,), std=(0.3,))),
        tmp_path / "lenet5",
        "onnx",
        digits,
    )
    assert read_head(exported) is None
    assert all(open_engine(exported, name).features is None for name in engines_at_hand(exported))


def test_the_graph_is_clean(exports: dict[str, Exported]) -> None:
    model = onnx.load(exports["onnx"].file)
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    assert [one.name for one in model.graph.input] == ["images"]
    assert [one.name for one in model.graph.output] == ["logits", "features"]
    sides = [one.type.tensor_type.shape.dim[0].dim_param for one in (*model.graph.input, *model.graph.output)]
    assert sides == ["batch"] * 3
    names = [node.name for node in model.graph.node]
    assert {"conv1/Conv", "layer3.0.conv2/Conv", "fc/Gemm"} <= set(names)
    assert len(set(names)) == len(names)


def test_the_files_tell_what_they_are_and_not_where_they_were_made(exports: dict[str, Exported]) -> None:
    told = {entry.key: entry.value for entry in onnx.load(exports["onnx"].file).metadata_props}
    assert json.loads(told["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(told["preprocessing"])["input_size"] == [1, *exports["onnx"].input_shape[1:]]
    assert json.loads(told["provenance"])["data"] == "digits"
    assert told["protocol"] == "1-crop 8"
    assert "resnet8" in exports["openvino"].file.read_text()
    here = str(Path(engines.__file__).parents[1]).encode()
    for exported in exports.values():
        for file in exported.file.parent.iterdir():
            if file.suffix == ".pt2":
                with zipfile.ZipFile(file) as archive:
                    contents = [archive.read(name) for name in archive.namelist()]
            else:
                contents = [file.read_bytes()]
            assert not any(here in content or b"site-packages" in content for content in contents), file


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_where_data_and_weights_lie_stays_at_home(
    to: str, classifier: Classifier, photos: Path, digits: DataSet, tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    own = open_data(str(photos), classes=digits.classes)
    facts = {"data": own.spec, "weights": str(photos / "old"), "fingerprint": own.fingerprint()}
    how = Int8(own, max_drop=100.0) if to != "torch" else None
    exported = export(replace(classifier, provenance=facts), tmp_path / "out", to, own, how)
    assert exported.provenance == {**facts, "data": "./cifar10", "weights": "old"}
    assert exported.checks["data"] == "./cifar10"
    assert not any(b"secret" in file.read_bytes() for file in exported.file.parent.iterdir())
    assert not is_divided_otherwise(exported, own)
    assert is_divided_otherwise(exported, open_data(str(photos), classes=digits.classes, split_seed=1))
    assert not is_divided_otherwise(exported, digits)


def test_normalisations_are_folded_for_pytorch_too(exports: dict[str, Exported]) -> None:
    with zipfile.ZipFile(exports["torch"].file) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("model.json"))).decode()
    assert "aten.conv2d" in text
    assert "batch_norm" not in text


def wrong_graph(network: nn.Module, shape: tuple[int, int, int]) -> tuple[object, None]:
    """What an exporter that gets a weight wrong would write."""
    from residuum.inference.onnx_graph import onnx_graph

    model, _ = onnx_graph(network, shape)
    weight = next(one for one in model.graph.initializer if one.name == "layer2.0.conv1.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 1.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return model, None


def test_other_logits_than_the_network_s_are_not_handed_over(
    classifier: Classifier, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residuum.inference.export.onnx_graph", wrong_graph)
    with pytest.raises(UserError, match=r"is not the network: .* gives other logits than PyTorch"):
        export(classifier, tmp_path / "out", "onnx", digits)
    assert [*tmp_path.iterdir()] == []


def test_what_the_network_makes_of_its_own_roundings_is_allowed_and_no_more(
    classifier: Classifier, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", 1e-9)  # as if a rounding grew to it, as in deep plain networks
    exported = export(classifier, tmp_path / "out", "onnx", digits)
    assert all(row["difference"] > parity.TOLERANCE for row in exported.checks["parity"])
    monkeypatch.setattr("residuum.inference.export.onnx_graph", wrong_graph)
    with pytest.raises(UserError, match="is not the network"):
        export(classifier, tmp_path / "other", "onnx", digits)


def test_a_network_that_has_diverged_is_not_exported(classifier: Classifier, digits: DataSet, tmp_path: Path) -> None:
    broken = create_model("resnet8", num_classes=10, in_channels=1).eval()
    broken.fc.weight.data[0] = torch.nan
    with pytest.raises(UserError, match="no numbers"):
        export(replace(classifier, network=broken), tmp_path / "out", "torch", digits)


def test_only_another_export_is_replaced(classifier: Classifier, digits: DataSet, tmp_path: Path) -> None:
    save_model(tmp_path / "model", classifier)
    (tmp_path / "file").write_text("mine")
    for name in ("model", "file"):
        with pytest.raises(UserError, match="-o DIR"):
            export(classifier, tmp_path / name, "torch", digits)
    assert load(tmp_path / "model").classes == classifier.classes
    assert set(EXPORTED_FILES) == {HEAD, *FILES.values(), *(name for names in BESIDE.values() for name in names)}
    for _ in range(2):
        exported = export(classifier, tmp_path / "export", "torch", digits)
    for name in ("notes.md", ".gitattributes"):
        (tmp_path / "export" / name).write_text("mine")
        with pytest.raises(UserError, match=f"holds {re.escape(name)}, which is no part of an export; .* -o DIR"):
            export(classifier, tmp_path / "export", "torch", digits)
        assert (tmp_path / "export" / name).read_text() == "mine"
        (tmp_path / "export" / name).unlink()
    assert sorted(file.name for file in exported.file.parent.iterdir()) == [
        "config.json",
        "model.pt2",
        "preprocessing.safetensors",
    ]


def test_an_export_is_no_run(exports: dict[str, Exported], classifier: Classifier) -> None:
    for path in (exports["onnx"].file.parent, exports["onnx"].file):
        assert export_folder(path) == exports["onnx"].file.parent
        for use in (load, lambda source: load_weights(classifier.network, "resnet8", str(source))):
            with pytest.raises(UserError, match="is an exported model, which holds no weights"):
                use(path)
        assert isinstance(open_model(path), Exported)
