"""A folder for the Hub: timm and transformers say of an image what residuum says; its card says what the run holds."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from residuum.cli.hub import write_hub_folder
from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.files import read_json, write_json
from residuum.inference.predict import predict
from residuum.model_config import store_temperature
from residuum.models.catalogue import create_model
from residuum.training.train import train
from residuum.weights import Classifier, load, save_model

CLASSES = ("flower", "house", "sky")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph (427x640), as a PNG: JPEG decoders may differ by a bit."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(load_sample_images().images[0]).save(path)
    return path


def untrained(architecture: str = "resnet18", channels: int = 3, **changes: Any) -> Classifier:
    torch.manual_seed(0)
    network = create_model(architecture, num_classes=3, in_channels=channels).eval()
    with torch.no_grad():
        for buffer in network.buffers():  # running statistics that are not those of a new network
            buffer.add_(1)
    handling = Preprocessing(channels, 64, 0.875, "bicubic", mean=(0.4,) * channels, std=(0.2,) * channels)
    return replace(Classifier(network, architecture, CLASSES, handling), **changes)


def published(folder: Path, classifier: Classifier) -> Path:
    save_model(folder / "saved", classifier)
    write_hub_folder(folder / "saved", folder / "hub")
    return folder / "hub"


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


# What others say of it.


def in_timm(folder: Path, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """What timm shows to its network, and what that says."""
    timm = pytest.importorskip("timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    view = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    shown = view(image)[None]
    with torch.inference_mode():
        return shown, network(shown)


def in_transformers(folder: Path, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    transformers = pytest.importorskip("transformers")
    shown = transformers.AutoImageProcessor.from_pretrained(folder)(image)["pixel_values"]
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    assert tuple(network.config.id2label.values()) == CLASSES
    with torch.inference_mode():
        return shown, network(shown).logits


@pytest.mark.parametrize("other", [in_timm, in_transformers])
@pytest.mark.parametrize(
    ("architecture", "channels"),
    [("resnet18", 3), ("resnet18", 1), ("resnet50_v1_5", 3), ("resnext50_32x4d", 3), ("timm/resnet10t", 3)],
)
def test_others_say_the_same_of_a_photograph(
    tmp_path: Path, photo: Path, other: Any, architecture: str, channels: int
) -> None:
    classifier = untrained(architecture, channels)
    image = Image.open(photo).convert("L" if channels == 1 else "RGB")
    shown, logits = other(published(tmp_path, classifier), image)
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    own = torch.from_numpy(classifier.preprocessing.normalise_views(classifier.preprocessing.view(pixels)[None]))
    torch.testing.assert_close(shown, own, rtol=1e-6, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(logits, classifier.network(own), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "side"), [(128, 186), (128, 198), (96, 117), (64, 73)])
def test_timm_resizes_to_the_same_side_where_the_share_is_no_round_number(
    tmp_path: Path, photo: Path, size: int, side: int
) -> None:
    classifier = untrained(preprocessing=Preprocessing(3, size, size / side))
    shown, _ = in_timm(published(tmp_path, classifier), Image.open(photo))
    own = classifier.preprocessing.normalise_views(classifier.preprocessing.view(np.asarray(Image.open(photo)))[None])
    assert load(tmp_path / "hub").preprocessing.resized_side == side
    np.testing.assert_allclose(shown.numpy(), own, rtol=1e-6, atol=1e-6)


def code_in(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 2.5}, {"multi_label": True}, {"multi_label": True, "temperature": 0.5}]
)
def test_the_code_in_the_card_runs_and_agrees(tmp_path: Path, photo: Path, changes: dict[str, Any]) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    folder = published(tmp_path, untrained(**changes))
    (own,) = predict(load(folder), [photo], top=1, device="cpu", precision="fp32")
    blocks = code_in(card_of(folder))
    assert len(blocks) == 3  # residuum's own, timm's and transformers'
    places = {"hf-hub:OWNER/hub": f"local-dir:{folder}", "hf:OWNER/hub": str(folder), "OWNER/hub": str(folder)}
    for code in blocks:
        for name, place in places.items():
            code = code.replace(name, place)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code.replace("photo.jpg", str(photo)), {})
        label, probability = (
            re.findall(r"\w+|[\d.]+", printed.getvalue())[:1],
            re.findall(r"0\.\d+", printed.getvalue()),
        )
        assert label == [own.labels[0]]
        assert float(probability[0]) == pytest.approx(own.probabilities[0], abs=1e-4)


@pytest.mark.parametrize("architecture", ["resnet20", "plain18", "resnet50"])
def test_a_network_that_timm_lacks_is_refused_by_it_and_the_card_says_so(tmp_path: Path, architecture: str) -> None:
    timm = pytest.importorskip("timm")
    folder = published(tmp_path, untrained(architecture))
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    card = card_of(folder)
    assert f"timm and transformers do not have `{architecture}` as it is here" in card
    assert 'library_name: "residuum"' in card
    assert len(code_in(card)) == 1
    assert load(folder).architecture == architecture


def test_what_others_cannot_know_is_said(tmp_path: Path) -> None:
    mean_image = np.zeros((3, 64, 64), np.float32)
    handling = replace(untrained().preprocessing, mean_image=mean_image)
    card = card_of(published(tmp_path, untrained(preprocessing=handling, temperature=1.7, multi_label=True)))
    assert "nothing of the temperature, 1.7" in card
    assert "nothing of the mean image" in card
    assert "each class is a yes or no" in card
    assert 'library_name: "residuum"' in card


def test_transformers_is_told_of_several_labels(tmp_path: Path) -> None:
    folder = published(tmp_path, untrained(multi_label=True))
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoConfig.from_pretrained(folder).problem_type == "multi_label_classification"


# The card of a run.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private") / "digits"
    changes = ["epochs=1", "device=cpu", "precision=fp32", "data.loader=memory"]
    train("digits", model="resnet8", out=folder, overrides=changes)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, tmp_path / "run"))


def test_the_metadata_hold_the_figures_of_the_run_with_their_intervals(run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write_hub_folder(run, tmp_path / "my digits")
    data = hub.ModelCard.load(tmp_path / "my digits" / "README.md").data
    results = read_json(run / "run.json")["results"]["test"]
    figures = {one.metric_name.partition(" (")[0]: one for one in data.eval_results}
    top1 = results["top1"]
    assert figures["top-1 accuracy"].metric_value == pytest.approx(top1["value"] / 100, abs=1e-6)
    interval = f"(95 % interval {top1['low'] / 100:.4f} to {top1['high'] / 100:.4f})"
    assert figures["top-1 accuracy"].metric_name.endswith(interval)
    assert figures["macro F1"].metric_value == pytest.approx(results["macro_f1"]["value"] / 100, abs=1e-6)
    assert {(one.dataset_name, one.dataset_split, one.task_type) for one in data.eval_results} == {
        ("digits", "test", "image-classification")
    }
    assert (data.pipeline_tag, data.library_name, data.model_name) == ("image-classification", "residuum", "my-digits")
    assert data.license is None


def test_the_card_says_what_the_run_holds(run: Path, tmp_path: Path) -> None:
    write_hub_folder(run, tmp_path / "hub")
    card, manifest = card_of(tmp_path / "hub"), read_json(run / "run.json")
    top1 = manifest["results"]["test"]["top1"]
    assert f"| top-1 accuracy | {top1['value']:.2f} % | {top1['low']:.2f} to {top1['high']:.2f} |" in card
    assert "1,438 train, 359 test images" in card
    assert f"`{manifest['data']['fingerprint']}`" in card
    assert "| epochs | 1 | 24 |" in card
    seconds = sum(json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines())
    assert f"1 epoch in {seconds:,.0f} s" in card
    assert manifest["hardware"]["processor"] in card
    assert "any image, also for one that shows none of them" in card
    worst = min(manifest["results"]["test"]["per_class"]["rows"], key=lambda row: row[3])
    assert f"It finds least of: {worst[0]} ({worst[3]:.1f} %)" in card
    assert "No temperature was fitted" in card


def differences(folder: Path) -> list[str]:
    """What the card says differs from the recipe."""
    _, _, table = card_of(folder).partition("| differs from the recipe | here | there |")
    return re.findall(r"^\| ([a-z._]+) \|", table.partition("\n\n")[0], re.MULTILINE)


def test_the_card_says_what_was_changed_of_the_recipe_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    write_hub_folder(copy, tmp_path / "hub")
    assert differences(tmp_path / "hub") == ["epochs"]
    manifest = read_json(copy / "run.json")
    assert manifest["run"]["data"]["size"] == 16
    manifest["run"]["data"]["size"] = 32  # as for images of 32 pixels, which the digits are not
    write_json(copy / "run.json", manifest)
    write_hub_folder(copy, tmp_path / "other")
    assert differences(tmp_path / "other") == ["data.size", "epochs"]


def test_a_run_that_does_not_say_what_its_images_were_is_not_compared(copy: Path, tmp_path: Path) -> None:
    manifest = read_json(copy / "run.json")
    del manifest["data"]["facts"]  # as it was written once
    write_json(copy / "run.json", manifest)
    write_hub_folder(copy, tmp_path / "hub")
    assert "from the recipe" not in card_of(tmp_path / "hub")


def test_a_temperature_is_told_with_what_it_was_fitted_on(copy: Path, tmp_path: Path) -> None:
    store_temperature(copy, 1.5, {"split": "test", "fingerprint": "f"})
    write_hub_folder(copy, tmp_path / "hub")
    assert "divided by a temperature of 1.5, fitted on test." in card_of(tmp_path / "hub")
    assert "none with it are recorded" in card_of(tmp_path / "hub")
    assert "expected_calibration_error" not in card_of(tmp_path / "hub")


def test_a_run_without_results_says_so(copy: Path, tmp_path: Path) -> None:
    manifest = read_json(copy / "run.json")
    write_json(copy / "run.json", {**manifest, "status": "interrupted", "results": None})
    write_hub_folder(copy, tmp_path / "hub")
    assert "None: the run has no results (it was interrupted)." in card_of(tmp_path / "hub")
    assert "model-index" not in card_of(tmp_path / "hub")


def test_the_best_weights_so_far_do_not_bear_the_figures_of_the_final_ones(copy: Path, tmp_path: Path) -> None:
    write_hub_folder(copy / "best", tmp_path / "hub")
    assert "best weights so far of a run, which were not measured in full" in card_of(tmp_path / "hub")
    assert "model-index" not in card_of(tmp_path / "hub")


def test_a_model_without_its_run_says_so(tmp_path: Path) -> None:
    card = card_of(published(tmp_path, untrained()))
    assert "None are known: the model came without the run that made it." in card
    assert "How it was trained is not recorded." in card


def test_a_run_that_has_not_ended_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model" / "config.json").unlink()
    with pytest.raises(UserError, match="has no model yet; finish it"):
        write_hub_folder(copy, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_folder_that_is_there_is_left_alone(run: Path, tmp_path: Path) -> None:
    write_hub_folder(run, tmp_path / "hub")
    (tmp_path / "hub" / "README.md").write_text("my own words")
    with pytest.raises(UserError, match="is there already"):
        write_hub_folder(run, tmp_path / "hub")
    assert card_of(tmp_path / "hub") == "my own words"


def test_where_the_data_lie_stays_at_home(copy: Path, tmp_path: Path) -> None:
    home = "/home/ada/secret/photos"
    manifest = read_json(copy / "run.json")
    manifest["data"] |= {"spec": f"{home}/train", "notes": [f"{home}/train: odd"]}
    manifest["run"]["model"]["weights"] = f"{home}/old"
    write_json(copy / "run.json", manifest)
    config = read_json(copy / "model" / "config.json")
    config["residuum"]["provenance"]["data"] = f"{home}/train"
    write_json(copy / "model" / "config.json", config)
    write_hub_folder(copy, tmp_path / "hub")
    for file in (tmp_path / "hub").iterdir():
        assert b"secret" not in file.read_bytes()
    assert "Learnt from and measured on photos/train" in card_of(tmp_path / "hub")
    assert load(tmp_path / "hub").provenance["data"] == "photos/train"


@pytest.mark.parametrize(
    ("place", "data_set"),
    [
        ("cifar10", "uoft-cs/cifar10"),
        ("/home/ada/cifar10", None),
        ("./cifar10", None),
        ("hf:ada/cats/test", "ada/cats"),
    ],
)
def test_only_a_public_data_set_is_named_to_the_hub(tmp_path: Path, place: str, data_set: str | None) -> None:
    folder = published(tmp_path, untrained(provenance={"data": place}))
    named = re.findall(r"^datasets:\n  - \"(.*)\"$", card_of(folder), re.MULTILINE)
    assert named == ([data_set] if data_set else [])
    write_hub_folder(folder, tmp_path / "again")
    assert card_of(tmp_path / "again").replace("again", "hub") == card_of(folder)


def test_names_of_strangers_are_shown_and_not_obeyed(copy: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    names = ["<script>", "a|b", "`", "# big\n\n## Results", "[x](http://y)", "---", "*", "\x1b[1m", '"', "\u202eevil"]
    manifest, config = read_json(copy / "run.json"), read_json(copy / "model" / "config.json")
    manifest["data"]["classes"] = config["label_names"] = names
    rows = manifest["results"]["test"]["per_class"]["rows"]
    manifest["results"]["test"]["per_class"]["rows"] = [[n, *row[1:]] for n, row in zip(names, rows, strict=True)]
    manifest["data"]["spec"] = config["residuum"]["provenance"]["data"] = 'data: "\n---\n<b>'
    write_json(copy / "run.json", manifest)
    write_json(copy / "model" / "config.json", config)
    write_hub_folder(copy, tmp_path / "hub")
    _, head, body = card_of(tmp_path / "hub").split("\n---\n", 1)[0], *card_of(tmp_path / "hub").split("---\n", 2)[1:]
    assert yaml.safe_load(head)["model-index"][0]["results"][0]["dataset"]["name"] == 'data: "\n---\n<b>'
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == [
        "Results",
        "Limits",
        "How to use it",
        "Input",
        "Data",
        "Training",
    ]
    text = re.sub(r"^```.*?^```", "", body, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<|\x1b|\u202e|(?<!\\)\[", text)
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.endswith("| ---: |")}) == 1
