"""Whole runs on small real data: what a run promises, from its first byte to its last."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, weights_hash

from residuum.data.sources import DataSet
from residuum.errors import UserError
from residuum.training.train import train
from residuum.weights import load


def test_a_run_learns_and_leaves_a_whole_folder(digits: DataSet, tmp_path: Path) -> None:
    result = train(digits, model="resnet8", out=tmp_path / "run", overrides=["epochs=4", "data.size=8", "device=cpu"])
    assert result.evaluations["test"].score > 80
    assert len(result.metrics) == 4
    manifest = json.loads((result.folder / "run.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["run"]["model"]["name"] == "resnet8"
    assert manifest["data"]["fingerprint"] == digits.fingerprint()
    assert manifest["results"]["test"]["top1"]["value"] == result.evaluations["test"].score
    assert list((result.folder / "tensorboard").iterdir())
    classifier = load(result.folder)
    assert classifier.classes == digits.classes
    assert classifier.preprocessing.size == 8


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(digits: DataSet, tmp_path: Path) -> None:
    runs = [
        train(digits, model="resnet8", out=tmp_path / str(i), overrides=[*SMALL, "epochs=1", f"seed={seed}"])
        for i, seed in enumerate([0, 0, 1])
    ]
    hashes = [weights_hash(run) for run in runs]
    assert hashes[0] == hashes[1] != hashes[2]


def test_memory_and_file_loader_and_any_number_of_workers_give_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    hashes = set()
    for number, how in enumerate(["memory", "file"]):
        for workers in (0, 2):
            overrides = [*SMALL, "epochs=1", "data.size=16"]
            overrides += [f"data.loader={how}", f"data.workers={workers}", "batch_size=8"]
            out = tmp_path / f"{number}-{workers}"
            hashes.add(weights_hash(train(str(photos), model="resnet8", out=out, overrides=overrides)))
    assert len(hashes) == 1


def test_micro_batches_make_the_same_update(digits: DataSet, tmp_path: Path) -> None:
    networks = []
    for pieces in (1, 4):  # LeNet-5 has no batch normalisation, whose statistics would differ
        overrides = [*SMALL, "epochs=1", f"accumulate={pieces}", "optimizer.lr=0.01", "data.size=32"]
        result = train(digits, model="lenet5", out=tmp_path / str(pieces), overrides=overrides)
        networks.append(load(result.folder).network.state_dict())
    for name, value in networks[0].items():
        torch.testing.assert_close(value, networks[1][name], rtol=1e-3, atol=1e-4)


def test_early_stopping_ends_the_run_and_keeps_the_best_weights(digits: DataSet, tmp_path: Path) -> None:
    overrides = [*SMALL, "epochs=30", "early_stopping=1", "schedule.name=constant", "optimizer.lr=0.5"]
    result = train(digits, model="resnet8", out=tmp_path / "run", overrides=overrides)
    assert len(result.metrics) < 30
    assert weights_hash(result) == weights_hash(result, "best")


def test_a_run_starts_from_given_weights_with_other_classes_and_frozen_layers(
    digits: DataSet, photos: Path, tmp_path: Path
) -> None:
    overrides = [*SMALL, "epochs=1", "data.channels=3"]
    first = train(digits, model="resnet8", out=tmp_path / "first", overrides=overrides)
    overrides += [f"model.weights={first.folder}", "model.freeze_until=layer3", "batch_size=8"]
    second = train(str(photos), model="resnet8", out=tmp_path / "second", overrides=overrides)
    before, after = load(first.folder), load(second.folder)
    assert after.classes == ("blue", "red")
    old, new = before.network.state_dict(), after.network.state_dict()
    frozen = [name for name in new if not name.startswith(("layer3", "fc"))]
    assert frozen
    assert all(torch.equal(old[name], new[name]) for name in frozen)
    assert not torch.equal(old["layer3.0.conv1.weight"], new["layer3.0.conv1.weight"])


def test_a_damaged_image_is_named_and_left_out_or_refused_when_strict(photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "red" / "3.png").write_bytes(b"not an image")
    overrides = [*SMALL, "data.size=16", "epochs=1", "batch_size=8"]
    result = train(str(photos), model="resnet8", out=tmp_path / "lenient", overrides=overrides)
    manifest = json.loads((result.folder / "run.json").read_text())
    assert [name for name, _ in manifest["bad_images"]] == ["train/red/3.png"]
    with pytest.raises(UserError, match=r"red/3\.png"):
        train(str(photos), model="resnet8", out=tmp_path / "strict", overrides=[*overrides, "data.strict=true"])
    # Nothing was lost by that start, so the same folder serves the next one.
    train(str(photos), model="resnet8", out=tmp_path / "strict", overrides=overrides)


def test_several_labels_an_image_train_with_binary_cross_entropy(photos: Path, tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for split in ("train", "val"):
        for name, labels in (("red", "red|warm"), ("blue", "blue")):
            lines += [f"{file},{labels},{split}" for file in sorted((photos / split / name).iterdir())]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    overrides = ["data.size=16", "device=cpu", "epochs=8", "batch_size=8"]
    result = train(str(tmp_path / "list.csv"), model="resnet8", out=tmp_path / "run", overrides=overrides)
    assert result.evaluations["val"].mean_average_precision is not None
    assert result.metrics[-1]["val_map"] == result.evaluations["val"].score
    assert "val_error" not in result.metrics[-1]
    assert result.evaluations["val"].score > 90
    assert load(result.folder).multi_label


@pytest.mark.parametrize(
    "overrides",
    [["model.name=resnet18", "batch_size=1"], ["model.name=torchvision/vit_b_16"]],
    ids=["one value a channel", "a fixed input size"],
)
def test_a_network_that_cannot_take_the_images_is_refused_before_any_work(
    digits: DataSet, tmp_path: Path, overrides: list[str]
) -> None:
    with pytest.raises(UserError, match=r"cannot be trained on batches .* 32x32"):
        train(digits, recipe="fast-cifar", out=tmp_path / "run", overrides=[*overrides, "accumulate=1"])
    assert not (tmp_path / "run").exists()


def test_a_shortcut_of_none_trains_the_plain_net(digits: DataSet, tmp_path: Path) -> None:
    overrides = [*SMALL, "epochs=1", "model.shortcut=none"]
    result = train(digits, model="resnet8", out=tmp_path / "run", overrides=overrides)
    assert load(result.folder).model_args == {"shortcut": "none"}


@pytest.mark.parametrize(
    ("overrides", "saved"),
    [
        (["model.normalisation=none", "model.activation=tanh"], {"normalisation": "none", "activation": "tanh"}),
        (["model.normalisation=group", "model.shortcut=constant"], {"shortcut": "constant", "normalisation": "group"}),
        (["model.initialisation=gaussian", "model.normalisation=batch"], {}),
    ],
)
def test_the_chosen_parts_are_trained_and_saved(
    digits: DataSet, tmp_path: Path, overrides: list[str], saved: dict[str, str]
) -> None:
    result = train(digits, model="resnet8", out=tmp_path / "run", overrides=[*SMALL, "epochs=1", *overrides])
    assert load(result.folder).model_args == saved
    assert result.run.model.initialisation == ("gaussian" if not saved else None)


def test_a_batch_that_lost_all_its_images_is_passed_over(photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "red" / "3.png").write_bytes(b"")
    overrides = [*SMALL, "data.size=16", "epochs=1", "batch_size=1"]
    result = train(str(photos), model="resnet8", out=tmp_path / "run", overrides=overrides)
    assert result.metrics[0]["step"] == 24
    assert result.metrics[0]["images"] == 23
