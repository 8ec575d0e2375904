"""Two real processes under torchrun: what they do together is what one does alone, whatever befalls them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest
from small_runs import manifest_of, weights_hash, without_times
from traced import read_trace, traced_step

import residuum.training.loop as loop
from residuum.data.sources import DataSet, open_data
from residuum.inference.evaluate import evaluate
from residuum.records import plain
from residuum.training.checkpoints import list_checkpoints, step_of
from residuum.training.train import TrainResult, train
from residuum.weights import load

COMMON = ["epochs=2", "device=cpu", "precision=fp32", "optimizer.name=momentum", "optimizer.lr=0.02"]
SMALL = [*COMMON, "data.size=8"]
EVERYTHING = [*SMALL, "ema=0.9", "recompute_bn=true", "checkpoint_every=7 steps"]
UPDATES = 44  # in two epochs of the digits, 64 images each, whoever has them


def arguments(model: str, settings: list[str]) -> list[str]:
    return ["digits", "-m", model, *(part for setting in settings for part in ("--set", setting))]


def torchrun(*run: str | Path, faults: str = "", restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes do the run or runs (see traced.py)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "--max-restarts", str(restarts), str(Path(__file__).with_name("traced.py")), *map(str, run)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "FAULTS": faults},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs of two processes, 32 images each at an update."""
    folder = tmp_path_factory.mktemp("together")
    lenet = [folder / "lenet5", *arguments("lenet5", COMMON), "-b", "32"]
    synchronised = [folder / "synchronised", *arguments("resnet8", SMALL), "-b", "32", "--sync-bn"]
    straight = [folder / "straight", *arguments("resnet8", EVERYTHING), "-b", "32"]
    done = torchrun(*lenet, "then", *synchronised, "then", *straight)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2/2") == 3
    return folder


def one_process(digits: DataSet, out: Path, model: str, settings: list[str]) -> TrainResult:
    """The run of one process with as many images at an update as the two have together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", traced_step)
        return train(digits, model=model, out=out, overrides=[*settings, "batch_size=64"])


@pytest.fixture(scope="module")
def alone(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    one_process(digits, folder / "lenet5", "lenet5", COMMON)
    one_process(digits, folder / "resnet8", "resnet8", SMALL)
    return folder


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_trace(out)]


def test_every_update_has_the_images_that_one_process_would_give_it(together: Path, alone: Path) -> None:
    one = [line["indices"] for line in read_trace(alone / "resnet8")]
    first, second = (read_trace(together / "straight", rank) for rank in range(2))
    assert len(one) == UPDATES
    assert [a["indices"] + b["indices"] for a, b in zip(first, second, strict=True)] == one


@pytest.mark.parametrize(("two", "one"), [("lenet5", "lenet5"), ("synchronised", "resnet8")])
def test_the_losses_are_those_of_one_process(together: Path, alone: Path, two: str, one: str) -> None:
    got, expected = losses(together / two), losses(alone / one)
    assert got[:15] == pytest.approx(expected[:15], rel=1e-5)
    assert got == pytest.approx(expected, rel=1e-2)  # a ReLU that falls to the other side lets the two drift apart


def test_without_sync_bn_each_process_normalises_by_its_own_images(together: Path, alone: Path) -> None:
    assert losses(together / "straight")[0] != pytest.approx(losses(alone / "resnet8")[0], rel=1e-3)


@pytest.mark.parametrize("name", ["lenet5", "synchronised", "straight"])
def test_two_processes_train_on_and_evaluate_every_image_once(together: Path, name: str) -> None:
    run, manifest = together / name, manifest_of(together / name)
    assert manifest["status"] == "finished"
    assert manifest["hardware"]["processes"] == 2
    assert [record["images"] for record in metrics(run)] == [22 * 64, 22 * 64]
    scored = manifest["results"]["test"]
    assert scored["images"] == 359
    saved = load(run)  # what two processes scored together is the model that one of them saved
    one = plain(evaluate(saved, open_data("digits", classes=saved.classes)))
    assert scored.pop("loss")["value"] == pytest.approx(one.pop("loss")["value"])
    assert scored == one


def metrics(run: Path) -> list[dict[str, object]]:
    return without_times(tuple(json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()))


def newest_step(run: Path) -> int:
    return step_of(list_checkpoints(run / "checkpoints")[-1])


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that lost a process after update 10, went on by itself, and was stopped by Ctrl-C after update 15."""
    run = tmp_path_factory.mktemp("interrupted") / "run"
    faults = "SIGKILL rank-1 10, SIGINT torchrun 15"
    done = torchrun(run, *arguments("resnet8", EVERYTHING), "-b", "32", faults=faults, restarts=2)
    assert "resumed at update 7" in done.stderr, done.stderr
    assert f"stopped by SIGINT; everything is saved in {run}; go on under torchrun as before" in done.stderr
    assert done.returncode != 0
    return run


def test_a_lost_process_is_started_again_and_the_run_goes_on_by_itself(interrupted: Path) -> None:
    for rank in range(2):
        attempts = [(line["attempt"], line["step"]) for line in read_trace(interrupted, rank)]
        assert attempts == [*((0, step) for step in range(1, 11)), *((1, step) for step in range(8, 16))]
    assert newest_step(interrupted) == 15
    assert manifest_of(interrupted)["status"] == "interrupted"


def test_a_run_that_everything_befell_ends_in_the_same_bytes(together: Path, interrupted: Path, tmp_path: Path) -> None:
    run = copytree(interrupted, tmp_path / "run")
    killed = torchrun(run, "digits", "--resume", faults="SIGKILL all 18")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert manifest_of(run)["status"] == "running"
    # Now worker processes read the images, also for the evaluation after the last update: they must not hear torchrun.
    faults = f"SIGTERM torchrun {UPDATES}"
    stopped = torchrun(run, "digits", "--resume", "-j", "1", "--loader", "file", faults=faults)
    assert "stopped by SIGTERM; everything is saved" in stopped.stderr, stopped.stderr
    assert newest_step(run) == UPDATES
    done = torchrun(run, "digits", "--resume")
    assert done.returncode == 0, done.stderr
    straight = together / "straight"
    assert weights_hash(run) == weights_hash(straight)
    assert weights_hash(run, "best") == weights_hash(straight, "best")
    assert metrics(run) == metrics(straight)
    assert manifest_of(run)["exact"] == {"claimed": True, "doubts": []}


def test_one_process_goes_on_with_the_work_of_two(
    digits: DataSet, interrupted: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copytree(interrupted, tmp_path / "run")
    monkeypatch.setattr(loop, "train_step", traced_step)
    train(digits, out=run, resume=True, overrides=["batch_size=64"])
    went_on = read_trace(run)[18:]  # after the 10 updates and the 8 of the two attempts
    assert [line["indices"] for line in went_on] == [line["indices"] for line in read_trace(alone / "resnet8")[15:]]
    assert "resumed with processes 2 -> 1" in manifest_of(run)["exact"]["doubts"]
