"""An export is the network, or it is not handed over: written whole, checked on real images, opened with care."""

import json
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet, open_data
from residuum.data.splits import Split, SubSplit
from residuum.errors import UserError
from residuum.inference import engines, parity
from residuum.inference import export as exporting
from residuum.inference.calibrate import is_divided_otherwise
from residuum.inference.deployed import deploy
from residuum.inference.description import checks_tables
from residuum.inference.engines import Engine, engines_at_hand, open_engine
from residuum.inference.evaluate import measure
from residuum.inference.export import Int8, export
from residuum.inference.exported import BESIDE, FILES, HEAD, Exported, export_folder, read_exported, read_head
from residuum.inference.exported_program import save_program
from residuum.inference.predictors import open_model
from residuum.model_config import EXPORTED_FILES
from residuum.models.catalogue import create_model
from residuum.pretrained import load_weights
from residuum.processor import own_cores
from residuum.weights import Classifier, load, save_model

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

ROOM = 1e-5


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return open_data("digits")


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def exports(classifier: Classifier, digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """By target: each once, in float32."""
    folder = tmp_path_factory.mktemp("exports")
    return {to: export(classifier, folder / to, to, digits) for to in ("onnx", "openvino", "torch")}


@pytest.fixture(scope="module")
def images(classifier: Classifier, digits: DataSet) -> np.ndarray:
    return parity.real_images(digits.splits["test"], classifier.preprocessing, 40)


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


# Engines.


def test_an_engine_that_is_unknown_or_cannot_run_it_is_refused(exports: dict[str, Exported]) -> None:
    with pytest.raises(UserError, match="unknown engine 'onyxruntime'; did you mean onnxruntime"):
        open_engine(exports["onnx"], "onyxruntime")
    with pytest.raises(UserError, match="onnxruntime does not run an export to openvino; that is done by openvino"):
        open_engine(exports["openvino"], "onnxruntime")


def test_an_engine_that_is_not_installed_is_named_with_what_installs_it(
    exports: dict[str, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else object())
    assert open_engine(exports["onnx"]).words.startswith("ONNX Runtime")
    for name in ("auto", "openvino"):
        with pytest.raises(UserError, match=r"openvino, which is not installed; run: pip install 'residuum\[export\]'"):
            open_engine(exports["openvino"], name)


def test_the_engine_says_what_it_computes_with(exports: dict[str, Exported]) -> None:
    found = open_engine(exports["onnx"], "onnxruntime").words
    assert re.fullmatch(r"ONNX Runtime \d+\.\d+\.\d+, fp32, \d+ threads?", found)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_a_damaged_file_is_one_line(to: str, exports: dict[str, Exported], tmp_path: Path) -> None:
    content = exports[to].file.read_bytes()
    for number, wrong in enumerate((b"", b"no model", content[: len(content) // 2], content[::-1])):
        file = tmp_path / f"{number}-{exports[to].file.name}"
        file.write_bytes(wrong)
        for name in engines_at_hand(exports[to]):
            with pytest.raises(UserError) as refusal:
                open_engine(replace(exports[to], file=file), name)
            assert "\n" not in str(refusal.value)
            assert file.name in str(refusal.value)


def test_a_file_of_another_network_is_refused(exports: dict[str, Exported]) -> None:
    for exported in exports.values():
        for name in engines_at_hand(exported):
            with pytest.raises(UserError, match=r"config\.json says .* to 3"):
                open_engine(replace(exported, classes=("a", "b", "c")), name)


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("models/model.json", lambda text: text.replace("torch.ops.aten.relu_.default", "torch.os.system")),
        ("models/model.json", lambda text: re.sub(r"Symbol\('(\w+)'", r"exec('\1'", text)),
        (
            "data/weights/model_weights_config.json",
            lambda text: text.replace('"use_pickle": false', '"use_pickle": true'),
        ),
        ("data/aotinductor/model.so", None),
        ("data/sample_inputs/model.pt", None),
    ],
)
def test_a_program_that_could_run_code_is_not_opened(
    entry: str, change, exports: dict[str, Exported], tmp_path: Path
) -> None:
    changed = 0
    with zipfile.ZipFile(exports["torch"].file) as old, zipfile.ZipFile(tmp_path / "model.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if change is not None and name.endswith(entry):
                content, before = change(content.decode()).encode(), content
                changed += content != before
            if change is not None or not name.endswith(entry):
                new.writestr(name, content)
        if change is None:
            changed += 1
            new.writestr(f"model/{entry}", b"\x80\x04code")
    assert changed == 1
    with pytest.raises(UserError, match="which could run code and is not opened"):
        open_engine(replace(exports["torch"], file=tmp_path / "model.pt2"))


def test_an_export_is_run_without_pytorch(exports: dict[str, Exported], images: np.ndarray) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np; from pathlib import Path\n"
        "from residuum.inference.deployed import deploy\n"
        "from residuum.inference.exported import read_exported\n"
        "from residuum.inference.engines import open_engine\n"
        "for folder, name in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    engine = open_engine(read_exported(Path(folder)), name)\n"
        "    assert engine(np.zeros((2, 1, SIDE, SIDE), np.float32)).shape == (2, 10)\n"
        "    views = np.zeros((1, SIDE, SIDE, 1), np.uint8)\n"
        "    assert deploy(folder, engine=name).probabilities(views).shape == (1, 10)\n"
    ).replace("SIDE", str(images.shape[2]))
    pairs = [(exports[to].file.parent, name) for to in ("onnx", "openvino") for name in engines_at_hand(exports[to])]
    arguments = [str(one) for pair in pairs for one in pair]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_an_engine_tells_nobody(exports: dict[str, Exported]) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from residuum.inference.exported import read_exported\n"
        "from residuum.inference.engines import open_engine\n"
        "open_engine(read_exported(Path(sys.argv[1])), 'openvino')\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    folder = str(exports["openvino"].file.parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# In 8-bit integers.


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


# From strangers.


def changed(exported: Exported, folder: Path, change: Callable[[str], str]) -> Exported:
    """A copy of an export to torch whose graph is another; `change` must find what it replaces."""
    file = folder / "model.pt2"
    with zipfile.ZipFile(exported.file) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                content, before = change(content.decode()).encode(), content
                assert content != before
            new.writestr(name, content)
    return replace(exported, file=file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.relu_.default", "torch.ops.aten.from_file.default"),
        ('"guards_code": []', '"guards_code": ["exit()"]'),
        ('"builtins.dict"', '"collections.defaultdict"'),
        ('"forward_arg_names": ["images"]', '"forward_arg_names": ["images=exit()"]'),
        ('"name": "images"', '"name": "images=exit()"'),
        ('"images": {', '"images=exit()": {'),
    ],
)
def test_a_program_is_opened_only_with_operators_and_names_of_networks(
    old: str, new: str, exports: dict[str, Exported], tmp_path: Path
) -> None:
    hostile = changed(exports["torch"], tmp_path, lambda text: text.replace(old, new).replace(quoted(old), quoted(new)))
    with pytest.raises(UserError, match="which could run code and is not opened"):
        open_engine(hostile)


def quoted(text: str) -> str:
    """As it stands in a text within JSON."""
    return text.replace('"', '\\"')


def test_what_is_checked_is_what_is_read_where_an_archive_has_two_of_a_name(
    exports: dict[str, Exported], images: np.ndarray, tmp_path: Path
) -> None:
    exported, written = exports["torch"], tmp_path / "written"
    code = f"__import__('pathlib').Path('{written}').write_text('x')"
    hostile = changed(exported, tmp_path, lambda text: re.sub(r"Symbol\('\w+', [^)]*\)", code, text, count=1))
    with zipfile.ZipFile(hostile.file) as old, zipfile.ZipFile(exported.file) as harmless:
        entries = {name: old.read(name) for name in old.namelist()}
        graph = next(name for name in entries if name.endswith("models/model.json"))
        for first in (graph, graph.capitalize()):
            with zipfile.ZipFile(tmp_path / "twice.pt2", "w") as new, warnings.catch_warnings(action="ignore"):
                for name in (first, first):
                    new.writestr(name, entries[graph])
                for name in entries:
                    new.writestr(name, harmless.read(name) if name == graph else entries[name])
            with suppress(UserError):
                found = open_engine(replace(exported, file=tmp_path / "twice.pt2"))(images)
                assert np.array_equal(found, open_engine(exported)(images))
            assert not written.exists()


def test_a_network_of_operators_that_are_not_opened_again_is_not_exported(tmp_path: Path) -> None:
    class Sums(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.cumsum(dim=1)

    with pytest.raises(UserError, match=r"computes aten\.cumsum\.default, which no export to torch has"):
        save_program(Sums().eval(), (3, 4, 4), tmp_path / "model.pt2")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_data_outside_the_folder_are_not_read(name: str, exports: dict[str, Exported], tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    model = onnx.load(exports["onnx"].file)
    file = tmp_path / "export" / "model.onnx"
    onnx.save(model, file, save_as_external_data=True, location="weights.bin")
    open_engine(replace(exports["onnx"], file=file), name)
    (tmp_path / "export" / "weights.bin").rename(tmp_path / "weights.bin")
    file.write_bytes(file.read_bytes().replace(b"\x0bweights.bin", b"\x0e../weights.bin"))
    with pytest.raises(UserError, match="cannot be opened"):
        open_engine(replace(exports["onnx"], file=file), name)


@pytest.mark.parametrize("target", ["onnx", "openvino", "torch"])
def test_a_file_without_its_folder_is_named_with_what_it_needs(
    target: str, exports: dict[str, Exported], tmp_path: Path
) -> None:
    file = Path(shutil.copy(exports[target].file, tmp_path))
    for use in (export_folder, open_model, deploy):
        with pytest.raises(UserError, match=rf"{file} is a part of an export: it needs the config\.json"):
            use(file)


# What computes.


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_that_fails_while_it_computes_says_so_in_one_line(
    name: str, exports: dict[str, Exported], images: np.ndarray, tmp_path: Path
) -> None:
    shape = (1, images[0].size)
    nodes = [
        onnx.helper.make_node("Reshape", ["images", "shape"], ["row"]),
        onnx.helper.make_node("MatMul", ["row", "weight"], ["logits"]),
    ]
    ends = [("images", ["batch", *images.shape[1:]]), ("logits", ["batch", 10])]
    given, found = ([onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, sides)] for end, sides in ends)
    constants = {"shape": np.array(shape, np.int64), "weight": np.zeros((shape[1], 10), np.float32)}
    held = [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "fixed", given, found, held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    engine = open_engine(replace(exports["onnx"], file=tmp_path / "model.onnx"), name)
    assert engine(images[:1]).shape == (1, 10)
    with pytest.raises(UserError, match=rf"model\.onnx cannot be computed by {name} \(.*\); copy it again") as refusal:
        engine(images[:3])
    assert "\n" not in str(refusal.value)


def test_want_of_memory_is_told_as_such(exports: dict[str, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(engines, "_OPEN", {"onnxruntime": lambda _: engines.Engine("full", full, full)})
    engine = open_engine(exports["onnx"], "onnxruntime")
    assert engine.features is not None
    for use in (engine, engine.features):
        with pytest.raises(MemoryError):
            use(np.zeros((1, 1, 8, 8), np.float32))


def test_a_device_or_a_precision_is_refused_for_an_export_alone(exports: dict[str, Exported], digits: DataSet) -> None:
    folder, exported = exports["onnx"].file.parent, exports["onnx"]
    for choice in ({"device": "cuda"}, {"precision": "bf16"}):
        with pytest.raises(UserError, match=rf"--{next(iter(choice))} \w+ is for runs: .* leave it out"):
            deploy(folder, **choice)
    with pytest.raises(UserError, match="--precision bf16 is for runs"):
        measure([exported, exported], digits, device="cpu", precision="bf16")
    deploy(folder, device="cpu", precision="fp32")


def test_each_export_is_measured_by_its_own_engine(exports: dict[str, Exported], digits: DataSet) -> None:
    seen: list[str] = []

    def watched(name: str) -> engines.Engine:
        engine = open_engine(exports["onnx"], name)
        return replace(engine, run=lambda images: seen.append(name) or engine(images))

    measure([exports["onnx"]] * 2, digits, engines=[watched("openvino"), watched("onnxruntime")], workers=0)
    assert set(seen) == {"openvino", "onnxruntime"}


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residuum.processor.cores", lambda: 8)
    for processes, own in (("1", 8), ("3", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert own_cores() == own


# What is not installed.

WITHOUT_TORCH = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""


@pytest.mark.parametrize(("package", "to"), [("onnxscript", "onnx"), ("openvino", "openvino"), ("nncf", "onnx")])
def test_what_is_not_installed_is_refused_before_any_work(
    package: str, to: str, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == package else object())
    nothing = Classifier(nn.Identity(), "none", digits.classes, Preprocessing(1, 8, mean=(0.3,), std=(0.3,)))
    purpose = "int8" if package == "nncf" else f"an export to {to}"
    with pytest.raises(UserError, match=rf"^{purpose} needs {package}, which is not installed; run: pip install"):
        export(nothing, tmp_path / "out", to, digits, Int8(digits) if package == "nncf" else None)


def test_what_needs_pytorch_says_so_where_it_is_not_installed(
    exports: dict[str, Exported], classifier: Classifier, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", classifier)
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    code = f"{WITHOUT_TORCH}from residuum.cli import main\nsys.exit(main())\n"
    onnx_export, torch_export = (str(exports[to].file.parent) for to in ("onnx", "torch"))
    verbs = (
        ["predict", str(tmp_path / "model"), str(image)],
        ["predict", torch_export, str(image)],
        ["evaluate", onnx_export, "digits"],
        ["export", str(tmp_path / "model"), "--to", "onnx"],
    )
    for verb in verbs:
        done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "needs PyTorch, which is not installed; install it" in done.stderr
        assert done.stderr.count("\n") == 1
    code = (
        f"{WITHOUT_TORCH}from residuum.errors import UserError\n"
        "from residuum.inference.deployed import deploy\n"
        "for path in sys.argv[1:]:\n"
        "    try: deploy(path)\n"
        "    except UserError as error: assert 'needs PyTorch' in str(error)\n"
        "    else: raise AssertionError\n"
    )
    models = [str(tmp_path / "model"), torch_export]
    done = subprocess.run([sys.executable, "-c", code, *models], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
