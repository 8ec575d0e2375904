"""A run that was stopped goes on to the same bytes, or says why it does not."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, manifest_of, stop_after, weights_hash, without_times
from torch import Tensor

import residuum.training.loop as loop
import residuum.training.outcome as outcome
import residuum.training.train as training
from residuum.data.sources import DataSet
from residuum.errors import UserError
from residuum.training.checkpoints import list_checkpoints
from residuum.training.interruption import Interrupted
from residuum.training.run_folder import RunFolder
from residuum.training.train import TrainResult, train

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


def assert_same_run(one: TrainResult, other: TrainResult) -> None:
    assert weights_hash(one) == weights_hash(other)
    assert weights_hash(one, "best") == weights_hash(other, "best")
    assert without_times(one.metrics) == without_times(other.metrics)
    states = [list_checkpoints(result.folder / "checkpoints")[-1] for result in (one, other)]
    for name in ("state.safetensors", "state.json"):
        assert (states[0] / name).read_bytes() == (states[1] / name).read_bytes()


@pytest.fixture(scope="module")
def straight(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that nothing interrupts."""
    return train(digits, model="resnet8", out=tmp_path_factory.mktemp("straight"), overrides=SMALL)


@pytest.fixture
def stopped(digits: DataSet, tmp_path: Path) -> Path:
    """The same run, asked to stop after 30 of its 66 updates, with a checkpoint every 7 of them."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 30)
        with pytest.raises(Interrupted):
            train(digits, model="resnet8", out=tmp_path, overrides=[*SMALL, "checkpoint_every=7 steps"])
    return tmp_path


def stop_in_evaluation(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send this process a real SIGINT in the midst of evaluation `number`, from 1."""
    true_predictor, made = outcome.predictor, 0

    def predictor(*arguments: object) -> Callable[[Tensor], Tensor]:
        nonlocal made
        made += 1
        if made == number:
            signal.raise_signal(signal.SIGINT)
        return true_predictor(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(outcome, "predictor", predictor)


@pytest.mark.parametrize("number", [2, 3, 4], ids=["an epoch", "the last epoch", "the finished run"])
def test_a_run_stopped_while_it_evaluates_goes_on_to_the_same_bytes(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: TrainResult, number: int
) -> None:
    stop_in_evaluation(monkeypatch, number)
    with pytest.raises(Interrupted):
        train(digits, model="resnet8", out=tmp_path, overrides=SMALL)
    monkeypatch.undo()
    assert len(list((tmp_path / "metrics.jsonl").read_text().splitlines())) == min(number - 1, 3)
    assert_same_run(train(digits, out=tmp_path, resume=True), straight)


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_it_used(
    digits: DataSet, stopped: Path, straight: TrainResult, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = list_checkpoints(stopped / "checkpoints")[-1]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    assert_same_run(train(digits, out=stopped, resume=True), straight)
    told = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
    assert len(told) == 1
    assert "step-00000030 is damaged (state.safetensors is not as it was written)" in told[0]
    assert (stopped / "checkpoints" / "damaged-step-00000030").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(digits: DataSet, stopped: Path) -> None:
    for checkpoint in list_checkpoints(stopped / "checkpoints"):
        (checkpoint / "state.json").unlink()
    with pytest.raises(UserError, match=r"every checkpoint .* is damaged; start a new run"):
        train(digits, out=stopped, resume=True)
    with pytest.raises(UserError, match="already holds a run"):
        train(digits, out=stopped)


def test_what_a_killed_writer_left_is_swept(digits: DataSet, stopped: Path, straight: TrainResult) -> None:
    (stopped / "checkpoints" / ".residuum-abcd1234-step-00000031").mkdir()
    (stopped / "checkpoints" / ".residuum-abcd1234-step-00000031" / "state.json").write_text("{")
    (stopped / ".residuum-abcd1234-run.json").write_text("{")
    (stopped / "best").rename(stopped / ".residuum-abcd1234-best.old")
    assert_same_run(train(digits, out=stopped, resume=True), straight)
    assert not list(stopped.rglob(".residuum-*"))


def test_another_number_of_workers_and_another_loader_change_nothing(
    digits: DataSet, stopped: Path, straight: TrainResult
) -> None:
    elsewhere = ["data.loader=file", "data.workers=2", "checkpoint_every=1 minute"]
    resumed = train(digits, out=stopped, resume=True, overrides=elsewhere)
    assert_same_run(resumed, straight)
    assert manifest_of(stopped)["exact"] == {"claimed": True, "doubts": []}


def test_going_on_under_other_conditions_drops_the_claim_out_loud(
    digits: DataSet, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_of(stopped)
    assert manifest["exact"]["claimed"]
    manifest["versions"]["torch"] = "2.0.0"
    manifest["hardware"]["threads"] = 64
    (stopped / "run.json").write_text(json.dumps(manifest))
    train(digits, out=stopped, resume=True)
    now = f"torch 2.0.0 -> {manifest_of(stopped)['versions']['torch']}; threads 64 -> {torch.get_num_threads()}"
    assert f"goes on under other conditions ({now})" in capsys.readouterr().err
    exact = manifest_of(stopped)["exact"]
    assert not exact["claimed"]
    assert len(exact["doubts"]) == 2
    assert json.loads((stopped / "model" / "config.json").read_text())["residuum"]["provenance"]["exact"] is False


def test_another_configuration_is_shown_and_refused_unless_allowed(
    digits: DataSet, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["optimizer.lr=0.7", "epochs=2"]
    with pytest.raises(UserError, match=r"optimizer\.lr: .* -> 0\.7; epochs: 3 -> 2.*--allow-changes"):
        train(digits, out=stopped, resume=True, overrides=changes)
    result = train(digits, out=stopped, resume=True, overrides=changes, allow_changes=True)
    assert result.run.optimizer.lr == 0.7
    assert len(result.metrics) == 2
    assert "optimizer.lr: 0.2 -> 0.7" in capsys.readouterr().err
    assert not manifest_of(stopped)["exact"]["claimed"]


def test_changed_settings_of_the_optimizer_are_those_it_works_with(
    digits: DataSet, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    true_step = loop.train_step

    def step_and_look(job: loop.Job, batch: loop.Batch) -> None:
        true_step(job, batch)
        seen.update((group["weight_decay"], group["momentum"]) for group in job.optimizer.param_groups)

    monkeypatch.setattr(loop, "train_step", step_and_look)
    changes = ["optimizer.weight_decay=0.5", "optimizer.momentum=0.1"]
    train(digits, out=stopped, resume=True, overrides=changes, allow_changes=True)
    assert {momentum for _, momentum in seen} == {0.1}
    assert max(decay for decay, _ in seen) == 0.5


def test_a_duration_that_lies_behind_is_refused(digits: DataSet, stopped: Path) -> None:
    with pytest.raises(UserError, match="has come to update 30, from where 22 cannot be reached"):
        train(digits, out=stopped, resume=True, overrides=["epochs=1"], allow_changes=True)


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew_over_its_records(digits: DataSet, stopped: Path) -> None:
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(UserError, match="has recorded epochs and no checkpoint to go on from"):
        train(digits, out=stopped, resume=True)
    with pytest.raises(UserError, match="already holds a run"):
        train(digits, out=stopped)
    assert (stopped / "metrics.jsonl").read_text()


def test_a_run_from_given_weights_goes_on_where_these_are_gone(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: TrainResult
) -> None:
    shutil.copytree(straight.folder, tmp_path / "given")
    overrides = [*SMALL, f"model.weights={tmp_path / 'given'}"]
    undisturbed = train(digits, model="resnet8", out=tmp_path / "undisturbed", overrides=overrides)
    stop_after(monkeypatch, 30)
    with pytest.raises(Interrupted):
        train(digits, model="resnet8", out=tmp_path / "cut", overrides=overrides)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "given")
    assert_same_run(train(digits, out=tmp_path / "cut", resume=True), undisturbed)


def test_a_folder_is_locked_within_the_process_too(stopped: Path) -> None:
    within = RunFolder(stopped).locked()
    with RunFolder(stopped).locked(), pytest.raises(UserError, match="in use by this very process"):
        within.__enter__()
    with RunFolder(stopped).locked():
        pass


@pytest.mark.parametrize("text", ["[" * 100_000, '{"run": 3}', '{"run": {"recipe": "quick"}}', "[]", "no json"])
def test_a_damaged_manifest_is_refused(digits: DataSet, tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json (is|describes)"):
        train(digits, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model": "resnet14"}, r"model\.name: resnet8 -> resnet14"),
        ({"recipe": "fast-cifar"}, "recipe: quick -> fast-cifar"),
        ({"overrides": ["batch_size=32"]}, "batch_size: 64 -> 32"),
        ({"overrides": ["optimizer.name=adam"]}, r"optimizer\.name"),
    ],
    ids=["model", "recipe", "batch size", "optimizer"],
)
def test_what_the_saved_state_does_not_fit_is_refused_even_if_allowed(
    digits: DataSet, stopped: Path, how: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=f"cannot go on otherwise.*{message}"):
        train(digits, out=stopped, resume=True, allow_changes=True, **how)  # type: ignore[arg-type]


def test_other_data_or_no_run_is_refused(digits: DataSet, photos: Path, stopped: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other data .* the same data, unchanged"):
        train(str(photos), out=stopped, resume=True)
    with pytest.raises(UserError, match="holds no run"):
        train(digits, out=tmp_path / "nothing", resume=True)
    with pytest.raises(UserError, match="name the run's folder with --out"):
        train(digits, resume=True)


def test_a_file_that_changed_meanwhile_is_noticed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*SMALL, "data.size=16", "batch_size=8"]
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        train(str(photos), model="resnet8", out=tmp_path / "run", overrides=overrides)
    changed = photos / "train" / "red" / "5.png"
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(UserError, match="other data"):
        train(str(photos), out=tmp_path / "run", resume=True)


def test_another_number_of_processes_goes_on_with_as_many_images_a_step(digits: DataSet, stopped: Path) -> None:
    manifest = manifest_of(stopped)
    manifest["hardware"]["processes"] = 2
    (stopped / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"took 128 images a step, this would take 64.*2 processes, or -b 128 on the 1"):
        train(digits, out=stopped, resume=True)
    manifest["run"]["batch_size"] = 32  # as if it had been begun by two processes of 32 images
    (stopped / "run.json").write_text(json.dumps(manifest))
    train(digits, out=stopped, resume=True, overrides=["batch_size=64"])
    assert manifest_of(stopped)["exact"]["doubts"] == ["resumed with processes 2 -> 1"]


def test_auto_resume_starts_goes_on_and_knows_when_it_is_done(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: TrainResult
) -> None:
    for steps in (10, 50):
        stop_after(monkeypatch, steps)
        with pytest.raises(Interrupted):
            train(digits, model="resnet8", out=tmp_path, resume="auto", overrides=SMALL)
        monkeypatch.undo()
    assert_same_run(train(digits, model="resnet8", out=tmp_path, resume="auto", overrides=SMALL), straight)
    with pytest.raises(UserError, match="finished; there is nothing to resume"):
        train(digits, model="resnet8", out=tmp_path, resume="auto", overrides=SMALL)


def test_a_folder_that_holds_a_run_is_not_written_over(digits: DataSet, straight: TrainResult) -> None:
    before = (straight.folder / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        train(digits, model="resnet8", out=straight.folder, overrides=SMALL)
    with pytest.raises(UserError, match="finished"):
        train(digits, out=straight.folder, resume=True)
    assert (straight.folder / "run.json").read_bytes() == before


DIVERGING = [
    *SMALL,
    "data.size=32",
    "optimizer.name=sgd",
    "optimizer.lr=1.4",
    "schedule.name=constant",
    "data.augmentation.pad_and_crop=4",
]
DIVERGING += ["schedule.warmup_steps=0", "loss.name=mse", "loss.label_smoothing=0", "on_nan=rollback"]


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_images(
    digits: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"(loss|gradient) is (nan|inf) at update \d+, .*digits\[\d+\].*--on-nan rollback"
    ):
        train(digits, model="lenet5", out=tmp_path, overrides=[*DIVERGING, "on_nan=stop"])
    manifest = manifest_of(tmp_path)
    assert manifest["status"] == "failed"
    assert len(manifest["failure"]["images"]) == 64


def test_a_gradient_that_is_not_finite_stops_before_the_update(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finite_with_infinite_slope(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - logits.detach()).abs().sum().sqrt()

    monkeypatch.setattr(training, "build_loss", lambda *_: finite_with_infinite_slope)
    with pytest.raises(UserError, match="the gradient is nan at update 0, before the update"):
        train(digits, model="resnet8", out=tmp_path, overrides=SMALL)


def test_rollback_halves_the_rate_until_training_goes_on_interrupted_or_not(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    straight = train(digits, model="lenet5", out=tmp_path / "straight", overrides=DIVERGING)
    found = manifest_of(straight.folder)["rollbacks"]
    assert 1 <= len(found) <= loop.MOST_ROLLBACKS
    assert all(len(rollback["images"]) == 64 for rollback in found)
    assert straight.metrics[-1]["lr"] == 1.4 * 0.5 ** len(found)
    assert straight.metrics[-1]["train_error"] < 50  # it learns in the end
    assert capsys.readouterr().err.count("before the update; back to update") == len(found)
    stop_after(monkeypatch, 30)
    with pytest.raises(Interrupted):
        train(digits, model="lenet5", out=tmp_path / "cut", overrides=DIVERGING)
    monkeypatch.undo()
    assert_same_run(train(digits, out=tmp_path / "cut", resume=True), straight)
    assert manifest_of(tmp_path / "cut")["rollbacks"] == found


def test_rollback_gives_up_where_nothing_helps(digits: DataSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="loss is inf at update 1"):
        train(digits, model="lenet5", out=tmp_path, overrides=[*DIVERGING, "optimizer.lr=1e30"])
    assert len(manifest_of(tmp_path)["rollbacks"]) == loop.MOST_ROLLBACKS
