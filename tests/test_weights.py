"""A saved model is the model: same logits, classes and preprocessing; and what is damaged is refused in one
line.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.models.catalogue import CATALOGUE, create_model, create_skeleton
from residuum.models.shortcuts import SHORTCUTS
from residuum.state_dicts import fill_skeleton
from residuum.weights import WEIGHTS, Classifier, load, save_model

CLASSES = ("ant", "bee", "cat")


def classifier(architecture: str = "resnet8", channels: int = 3, **model_args: Any) -> Classifier:
    torch.manual_seed(0)
    sizes = {"num_classes": len(CLASSES), "in_channels": channels}
    network = create_model(architecture, **sizes, **model_args)
    with torch.no_grad():
        for buffer in network.buffers():  # running statistics that are not those of a new network
            buffer.add_(1)
    colours = {"mean": (0.4,) * channels, "std": (0.2,) * channels}
    preprocessing = Preprocessing(channels, 32, crop_pct=0.875, interpolation="bicubic", **colours)
    provenance = {"recipe": "quick", "scores": {"test": 98.6}}
    return Classifier(network.eval(), architecture, CLASSES, preprocessing, model_args, provenance=provenance)


def logits(network: torch.nn.Module, channels: int = 3) -> torch.Tensor:
    images = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network.eval()(images)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("architecture", "channels", "model_args"),
    [
        ("resnet8", 3, {}),
        ("resnet8", 1, {"shortcut": "B"}),
        ("plain8", 3, {}),
        ("resnext50_32x4d", 3, {}),
        ("preact_resnet8", 3, {"normalisation": "layer"}),
        ("resnet8_relu_preact", 3, {"normalisation": "group", "activation": "tanh"}),
        ("resnet8_bn_after_relu", 3, {"normalisation": "none"}),
        ("resnext29_2x4d", 1, {"activation": "tanh"}),
        ("torchvision/resnet18", 3, {"normalisation": "group"}),
        *(("resnet8", 3, {"shortcut": shortcut}) for shortcut in SHORTCUTS),
    ],
)
def test_a_saved_model_comes_back_bit_for_bit(
    tmp_path: Path, architecture: str, channels: int, model_args: dict[str, Any]
) -> None:
    saved = classifier(architecture, channels, **model_args)
    save_model(tmp_path / "model", saved)
    loaded = load(tmp_path / "model")
    assert torch.equal(logits(loaded.network, channels), logits(saved.network, channels))
    assert replace(loaded, network=saved.network) == saved
    assert not loaded.network.training


def test_the_mean_image_and_the_kind_of_labels_travel_with_the_weights(tmp_path: Path) -> None:
    mean_image = np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)
    plain = classifier()
    saved = replace(plain, multi_label=True, preprocessing=replace(plain.preprocessing, mean_image=mean_image))
    save_model(tmp_path / "model", saved)
    loaded = load(tmp_path / "model")
    assert loaded.preprocessing == saved.preprocessing
    assert loaded.multi_label
    assert "mean_image" not in config_of(tmp_path / "model")["pretrained_cfg"]
    save_model(tmp_path / "model", plain)
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "model.safetensors"]


def test_a_run_folder_is_read_as_its_model(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="no model yet"):
        load(tmp_path)
    save_model(tmp_path / "model", classifier())
    assert load(str(tmp_path)).classes == CLASSES


def test_weights_in_any_memory_layout_are_saved(tmp_path: Path) -> None:
    saved = classifier()
    expected = logits(saved.network)
    saved.network.to(memory_format=torch.channels_last)
    save_model(tmp_path / "model", saved)
    assert torch.equal(logits(load(tmp_path / "model").network), expected)


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_a_crash_while_saving_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    folder = tmp_path / "model"
    save_model(folder, classifier())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls, replace_file = [], os.replace

    def failing(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == failing_call:
            raise OSError("disk gone")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk gone"):
        save_model(folder, classifier(shortcut="B"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        save_model(tmp_path, classifier())
    assert os.listdir(tmp_path) == ["thesis.tex"]


# The Hub layout, shared with timm.


@pytest.mark.parametrize(
    ("architecture", "model_args", "name"),
    [
        ("resnet18", {}, "resnet18"),
        ("resnet18", {"shortcut": "B", "drop_path": 0.1}, "resnet18"),
        ("resnet18", {"shortcut": "C"}, "residuum_resnet18"),
        ("resnet18", {"normalisation": "group"}, "residuum_resnet18"),
        ("resnet18", {"activation": "tanh"}, "residuum_resnet18"),
        ("resnet50", {}, "residuum_resnet50"),
        ("resnet50_v1_5", {}, "resnet50"),
        ("resnet8", {}, "residuum_resnet8"),
        ("resnet26", {}, "residuum_resnet26"),
        ("timm/resnet10t.c3_in1k", {}, "resnet10t"),
        ("timm/resnet18", {"normalisation": "group"}, "residuum_timm/resnet18"),
    ],
)
def test_only_what_is_timms_network_bears_its_name(
    tmp_path: Path, architecture: str, model_args: dict[str, Any], name: str
) -> None:
    save_model(tmp_path / "model", classifier(architecture, **model_args))
    assert config_of(tmp_path / "model")["architecture"] == name


@pytest.mark.parametrize(("architecture", "channels"), [("resnet18", 1), ("resnet50_v1_5", 3)])
def test_timm_loads_what_we_save(tmp_path: Path, architecture: str, channels: int) -> None:
    timm = pytest.importorskip("timm")
    saved = classifier(architecture, channels)
    save_model(tmp_path / "model", saved)
    network = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    assert torch.equal(logits(network, channels), logits(saved.network, channels))
    assert network.pretrained_cfg["label_names"] == list(CLASSES)
    data = timm.data.resolve_model_data_config(network)
    assert (data["crop_pct"], data["interpolation"]) == (0.875, "bicubic")
    assert (data["input_size"], tuple(data["mean"])) == ((channels, 32, 32), (0.4,) * channels)


@pytest.mark.parametrize(("name", "ours"), [("resnet50", "resnet50_v1_5"), ("resnet10t", "timm/resnet10t")])
def test_we_load_what_timm_saves(tmp_path: Path, name: str, ours: str) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=3)
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    loaded = load(tmp_path)
    assert loaded.architecture == ours
    assert loaded.classes == ("0", "1", "2")
    assert torch.equal(logits(loaded.network), logits(network))
    timm.models.save_for_hf(network, tmp_path, {"label_names": list(CLASSES)}, safe_serialization=True)
    assert load(tmp_path).classes == CLASSES


def test_we_load_what_timm_pickles_and_execute_nothing_in_it(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", num_classes=3)
    timm.models.save_for_hf(network, tmp_path, {"label_names": list(CLASSES)})  # by default
    assert not (tmp_path / WEIGHTS).exists()
    assert load(tmp_path).classes == CLASSES
    assert torch.equal(logits(load(tmp_path).network), logits(network))
    torch.save({"fc.weight": torch.zeros(3, 512), "other": Path()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged, or pickles Python objects"):
        load(tmp_path)


def test_weights_in_safetensors_come_before_pickled_ones(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", num_classes=3)
    timm.models.save_for_hf(network, tmp_path, safe_serialization="both")
    (tmp_path / "pytorch_model.bin").write_bytes(b"damaged")
    assert torch.equal(logits(load(tmp_path).network), logits(network))


def test_transformers_loads_what_we_save_and_we_what_it_saves(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    saved = classifier("resnet18", 1)
    save_model(tmp_path / "model", replace(saved, multi_label=True))
    network = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images).logits, saved.network(images))
    network.save_pretrained(tmp_path / "theirs")
    config = config_of(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**config, "residuum": {}}))
    loaded = load(tmp_path / "theirs")
    assert torch.equal(logits(loaded.network, 1), logits(saved.network, 1))
    assert (loaded.classes, loaded.multi_label) == (CLASSES, True)


def test_a_timm_network_of_other_arguments_is_refused(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", num_classes=3, output_stride=8)
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    with pytest.raises(UserError, match="output_stride=8"):
        load(tmp_path)


# Refusals.


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, classifier())
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    for file in original.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone")
    assert "no config.json" in refusal(tmp_path)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "no architecture": ({"architecture": None}, "architecture missing"),
    "count of another type": ({"num_classes": "3"}, "num_classes missing or of another type"),
    "section of another type": ({"residuum": []}, "residuum missing or of another type"),
    "section lost": ({"residuum": {}}, "lacks the section"),
    "names too few": ({"label_names": ["ant"]}, "does not give each of the 3 outputs a name"),
    "names of a gap": ({"label_names": {"0": "ant", "2": "cat"}}, "does not give each"),
    "no preprocessing": ({"pretrained_cfg": {}}, "no usable preprocessing"),
    "size in words": ({"pretrained_cfg": {"input_size": "large"}}, "a list of whole numbers"),
    "oblong": ({"pretrained_cfg": {"input_size": [3, 32, 48]}}, "only square"),
    "unknown network": ({"residuum": {"architecture": "resnet21"}}, "6n"),
    "unknown normalisation": (
        {"residuum": {"architecture": "resnet8", "model_args": {"normalisation": "bach"}}},
        "did you mean batch",
    ),
    "activation of another type": (
        {"residuum": {"architecture": "resnet8", "model_args": {"activation": 1}}},
        "activation=1",
    ),
    "unknown argument": ({"residuum": {"architecture": "resnet8", "model_args": {"colour": 1}}}, "colour"),
    "other network": ({"residuum": {"architecture": "resnet14"}}, "missing: layer1.1"),
    "another count": ({"num_classes": 2, "label_names": ["ant", "bee"]}, r"fc.weight 3x64 instead of 2x64"),
    "mean image lost": ({"residuum": {"architecture": "resnet8", "mean_image": True}}, "no weight file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_configuration_that_does_not_fit_is_refused(folder: Path, change: str) -> None:
    changes, message = CHANGES[change]
    config = {**config_of(folder), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_damaged_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "JSON" in refusal(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (
        b"",
        whole[:100],
        whole[:-4],
        b"\xff" * 8 + whole[8:],
        whole.replace(b'"F32"', b'"F64"', 1),
    ):
        weights.write_bytes(damaged)
        assert "damaged" in refusal(folder)
    weights.unlink()
    assert "no weight file" in refusal(folder)


def test_up_to_three_wrong_names_of_each_kind_are_given(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("layer2", "level2"): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors")
    message = refusal(folder)
    for layer in ("layer2", "level2"):
        assert message.count(layer) == 3
    assert "and 7 more" in message


def test_weights_from_before_batch_counters_load(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    old = {name: tensor for name, tensor in weights.items() if "num_batches" not in name}
    save_file(old, folder / "model.safetensors")
    assert torch.equal(logits(load(folder).network), logits(classifier().network))


def test_loading_draws_no_random_numbers(folder: Path) -> None:
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_weight_file_holds_every_tensor_of_our_networks(name: str) -> None:
    skeleton = create_skeleton(name)
    tensors = {key for key, _ in (*skeleton.named_parameters(), *skeleton.named_buffers())}
    assert tensors == skeleton.state_dict().keys()


@pytest.mark.parametrize(("name", "channels"), [("lenet5", 1), ("preact_resnet110", 3), ("resnet8", 3)])
def test_a_filled_skeleton_is_the_network(name: str, channels: int) -> None:
    network, filled = create_model(name, in_channels=channels), create_skeleton(name, in_channels=channels)
    fill_skeleton(filled, network.state_dict(), "here")
    images = torch.randn(2, channels, 32, 32)
    assert torch.equal(network.eval()(images), filled.eval()(images))
    for own, other in zip(filled.parameters(), network.parameters(), strict=True):
        assert own.requires_grad
        assert own.data_ptr() != other.data_ptr()


def test_weights_of_half_precision_load_as_float32_and_are_trainable(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: t.half() if t.is_floating_point() else t for name, t in weights.items()}, folder / WEIGHTS)
    network = load(folder).network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    network.train()(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_loaded_network_does_not_hang_on_its_file(folder: Path) -> None:
    network = load(folder).network
    before = logits(network)
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(100)
    assert torch.equal(logits(network), before)
