"""Whole runs on small real data: what a run promises, from its first byte to its last."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import residuum.training.loop as loop
from residuum.data.sources import DataSet, open_data
from residuum.errors import UserError
from residuum.inference.evaluate import evaluate
from residuum.training.interruption import Interrupted
from residuum.training.loop import Job
from residuum.training.train import TrainResult, train
from residuum.weights import load

SMALL = ["epochs=3", "data.size=8", "device=cpu", "precision=fp32", "batch_size=64"]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return open_data("digits")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 24x32 colour images, 12 each: one reddish, one bluish."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name, channel in (("red", 0), ("blue", 2)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (24, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"


def weights_hash(result: TrainResult, folder: str = "model") -> str:
    return hashlib.sha256((result.folder / folder / "model.safetensors").read_bytes()).hexdigest()


def without_times(metrics: tuple[dict[str, object], ...]) -> list[dict[str, object]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in metrics]


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send this process a real SIGINT when `steps` updates are done."""
    true_step = loop.train_step

    def step_and_signal(job: Job, batch: loop.Batch) -> None:
        true_step(job, batch)
        if job.position.step == steps:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "train_step", step_and_signal)


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


EPOCHS = {  # an epoch has 22 updates
    "sgd-plateau-ema": [
        "optimizer.name=momentum",
        "schedule.name=plateau",
        "schedule.warmup_steps=0",
        "ema=0.9",
    ],
    "adamw-mixup-droppath": ["optimizer.name=adamw", "data.augmentation.mixup=0.2", "model.drop_path=0.2"],
    "file-bf16-bn": ["recompute_bn=true", "data.loader=file", "data.workers=1", "precision=bf16"],
    "early-stopping": ["early_stopping=9", "schedule.name=one-cycle", "schedule.warmup_steps=0"],
    "lbfgs-accumulate": ["optimizer.name=lbfgs", "optimizer.weight_decay=0", "accumulate=2", "iterations=6"],
}


@pytest.mark.parametrize(
    ("extra", "steps"),
    [
        pytest.param(EPOCHS[name], steps, id=f"{name}-{steps}")
        for name, steps in [
            ("sgd-plateau-ema", 10),
            ("sgd-plateau-ema", 22),
            ("adamw-mixup-droppath", 23),
            ("file-bf16-bn", 21),
            ("early-stopping", 44),
            ("lbfgs-accumulate", 3),
        ]
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str], steps: int
) -> None:
    overrides = [*SMALL, "epochs=2", "optimizer.lr=0.01", *extra]
    straight = train(digits, model="resnet8", out=tmp_path / "straight", overrides=overrides)
    stop_after(monkeypatch, steps)
    with pytest.raises(Interrupted) as stopped:
        train(digits, model="resnet8", out=tmp_path / "cut", overrides=overrides)
    assert stopped.value.exit_code == 130
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["status"] == "interrupted"
    monkeypatch.undo()
    resumed = train(digits, out=tmp_path / "cut", resume=True)
    assert weights_hash(resumed) == weights_hash(straight)
    assert weights_hash(resumed, "best") == weights_hash(straight, "best")
    assert without_times(resumed.metrics) == without_times(straight.metrics)


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


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_images(
    digits: DataSet, tmp_path: Path
) -> None:
    overrides = [*SMALL, "optimizer.lr=1e30", "schedule.name=constant", "schedule.warmup_steps=0"]
    with pytest.raises(UserError, match=r"step \d+.*digits\[\d+\].*--lr"):
        train(digits, model="resnet8", out=tmp_path / "run", overrides=overrides)
    failure = json.loads((tmp_path / "run" / "run.json").read_text())
    assert failure["status"] == "failed"
    assert len(failure["failure"]["images"]) == 64


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


def test_a_folder_that_holds_a_run_is_not_written_over(digits: DataSet, tmp_path: Path) -> None:
    train(digits, model="resnet8", out=tmp_path / "run", overrides=[*SMALL, "epochs=1"])
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        train(digits, model="resnet8", out=tmp_path / "run", overrides=SMALL)
    with pytest.raises(UserError, match="finished"):
        train(digits, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_resuming_with_another_configuration_or_other_data_is_refused(
    digits: DataSet, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 5)
    with pytest.raises(Interrupted):
        train(digits, model="resnet8", out=tmp_path / "run", overrides=SMALL)
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        train(digits, out=tmp_path / "run", resume=True, overrides=["optimizer.lr=0.7"])
    with pytest.raises(UserError, match=r"model\.name: resnet8 -> resnet14; recipe: quick -> fast-cifar"):
        train(digits, out=tmp_path / "run", resume=True, model="resnet14", recipe="fast-cifar")
    with pytest.raises(UserError, match="other data"):
        train(str(photos), out=tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="holds no run"):
        train(digits, out=tmp_path / "nothing", resume=True)


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


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(digits: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        train(digits, model="resnet8", out=tmp_path / "file" / "run", overrides=SMALL)


def test_two_processes_share_the_work_and_write_one_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["residuum", "train", "digits", "-m", "resnet8", "-o", str(tmp_path / "run"), "--device", "cpu"]
    command += ["--epochs", "2", "-b", "32", "--set", "data.size=8", "--set", "early_stopping=5"]
    command += ["--precision", "fp32"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["hardware"]["processes"] == 2
    assert manifest["results"]["test"]["images"] == 359
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [22 * 64, 22 * 64]
    assert done.stderr.count("epoch 2/2") == 1
    saved = load(tmp_path / "run")  # what two processes scored together is the model that one of them saved
    alone = evaluate(saved, open_data("digits", classes=saved.classes))
    assert alone.score == manifest["results"]["test"]["top1"]["value"]


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(digits: DataSet, tmp_path: Path) -> None:
    settings = ["iterations=220", "data.size=8", "batch_size=64", "device=cpu", "evaluate_every=2"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "residuum", "train", "digits", "-o", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.Popen([*command, "-r", "he2015-cifar", "-m", "resnet8", *overrides], env=environment)
    checkpoints = tmp_path / "killed" / "checkpoints"
    while not any(checkpoints.glob("step-*")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    subprocess.run([*command, "--resume"], env=environment, check=True, timeout=200)
    straight = train(digits, recipe="he2015-cifar", model="resnet8", out=tmp_path / "straight", overrides=settings)
    resumed = hashlib.sha256((tmp_path / "killed" / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert resumed == weights_hash(straight)


def test_going_on_with_another_number_of_processes_is_refused(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 3)
    with pytest.raises(Interrupted):
        train(digits, model="resnet8", out=tmp_path / "run", overrides=SMALL)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    manifest["hardware"]["processes"] = 2
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="ran on 2 processes, now there are 1"):
        train(digits, out=tmp_path / "run", resume=True)


def test_a_shortcut_of_none_trains_the_plain_net(digits: DataSet, tmp_path: Path) -> None:
    overrides = [*SMALL, "epochs=1", "model.shortcut=none"]
    result = train(digits, model="resnet8", out=tmp_path / "run", overrides=overrides)
    assert load(result.folder).model_args == {"shortcut": "none"}


def test_a_batch_that_lost_all_its_images_is_passed_over(photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "red" / "3.png").write_bytes(b"")
    overrides = [*SMALL, "data.size=16", "epochs=1", "batch_size=1"]
    result = train(str(photos), model="resnet8", out=tmp_path / "run", overrides=overrides)
    assert result.metrics[0]["step"] == 24
    assert result.metrics[0]["images"] == 23
