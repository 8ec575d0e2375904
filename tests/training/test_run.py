import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residuum.data.augmentations import Augmentation
from residuum.errors import UserError
from residuum.training.run import (
    DataHandling,
    LossChoice,
    ModelChoice,
    OptimizerChoice,
    Run,
    ScheduleChoice,
    parse_interval,
)


def small_run(**changes: Any) -> Run:
    run = Run(
        recipe="test",
        model=ModelChoice("resnet20"),
        data=DataHandling(size=32),
        optimizer=OptimizerChoice("momentum", lr=0.1),
        schedule=ScheduleChoice("constant"),
        loss=LossChoice("cross-entropy"),
        epochs=10,
        iterations=None,
        batch_size=128,
    )
    return replace(run, **changes)


def test_total_iterations_come_from_epochs_or_stand_for_themselves() -> None:
    assert small_run().total_iterations(391) == 3910
    assert small_run(epochs=None, iterations=64_000).total_iterations(391) == 64_000


def through_json(run: Run) -> Run:
    return Run.from_dict(json.loads(json.dumps(run.to_dict())))


def test_a_run_with_every_kind_of_value_goes_through_json_unchanged() -> None:
    run = small_run(
        model=ModelChoice(
            "resnet56",
            shortcut="A",
            zero_gamma=True,
            weights="runs/a",
            freeze_until="layer2",
            normalisation="group",
            activation="tanh",
            initialisation="xavier",
        ),
        data=DataHandling(
            size=224,
            crop_pct=0.875,
            normalisation="per-pixel-mean",
            augmentation=Augmentation(shorter_side=(256, 480), flip=True, lighting=0.1, randaugment=(2, 9)),
            workers=3,
        ),
        schedule=ScheduleChoice("multistep", milestones=(0.5, 48_000)),
        epochs=None,
        iterations=7,
    )
    again = through_json(run)
    assert again == run
    assert isinstance(again.schedule.milestones, tuple)
    assert isinstance(again.data.augmentation.shorter_side, tuple)


@given(
    st.floats(1e-9, 10),
    st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    st.lists(st.floats(1e-3, 1e6), max_size=4).map(tuple),
    st.integers(0, 2**62),
)
def test_any_run_goes_through_json_unchanged(
    lr: float, betas: tuple[float, float], milestones: tuple[float, ...], seed: int
) -> None:
    schedule = ScheduleChoice("constant", milestones=milestones)
    run = small_run(optimizer=OptimizerChoice("adam", lr=lr, betas=betas), schedule=schedule, seed=seed)
    assert through_json(run) == run


def test_fields_that_a_record_lacks_take_their_default() -> None:
    record = small_run().to_dict()
    del record["seed"], record["data"]["augmentation"]
    assert Run.from_dict(record) == small_run()


def test_a_record_from_before_the_parts_of_a_network_could_be_chosen_still_loads() -> None:
    record = small_run().to_dict()
    for name in ("normalisation", "activation", "initialisation"):
        del record["model"][name]
    assert Run.from_dict(record) == small_run()


def test_a_choice_of_network_says_whether_it_draws_random_numbers() -> None:
    assert not ModelChoice("resnet20", shortcut="gated").draws
    assert ModelChoice("resnet20", shortcut="dropout").draws
    assert ModelChoice("resnet20", drop_path=0.1).draws


def broken(path: str, value: Any) -> dict[str, Any]:
    record = small_run().to_dict()
    *groups, name = path.split(".")
    target = record
    for group in groups:
        target = target[group]
    target[name] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.momentun", 0.9, "unknown field 'optimizer.momentun'; did you mean optimizer.momentum"),
        ("optimizer.lr", "fast", "optimizer.lr takes a number, got 'fast'"),
        ("optimizer.lr", True, "optimizer.lr takes a number, got True"),
        ("optimizer.lr", float("nan"), "optimizer.lr takes a number, got nan"),
        ("optimizer.betas", [0.9], r"optimizer.betas takes 2 numbers, got \[0.9\]"),
        ("optimizer.name", "sdg", "unknown optimizer.name 'sdg'; did you mean sgd"),
        ("model.normalisation", "bach", "unknown model.normalisation 'bach'; did you mean batch"),
        ("model.activation", "gelu", "allowed: relu, tanh"),
        ("model.initialisation", "xaver", "did you mean xavier"),
        ("schedule.milestones", 0.5, "schedule.milestones takes a list of numbers, got 0.5"),
        ("data.workers", "many", "data.workers takes a whole number or none, got 'many'"),
        ("data.augmentation.flip", 1, "data.augmentation.flip takes true or false, got 1"),
        ("data", 32, "data takes a group of fields, got 32"),
        ("batch_size", 128.0, "batch_size takes a whole number, got 128.0"),
    ],
)
def test_a_record_with_a_wrong_field_or_type_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Run.from_dict(broken(path, value))


def test_a_missing_field_is_named() -> None:
    record = small_run().to_dict()
    del record["optimizer"]["lr"]
    with pytest.raises(UserError, match=r"field optimizer\.lr is missing"):
        Run.from_dict(record)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.lr", -0.1),
        ("optimizer.lr", 0.0),
        ("optimizer.momentum", 1.0),
        ("optimizer.weight_decay", -1e-4),
        ("optimizer.betas", [0.9, 1.0]),
        ("optimizer.eps", -1.0),
        ("schedule.gamma", 0.0),
        ("schedule.milestones", [-5]),
        ("schedule.patience", -1),
        ("schedule.min_lr", -1.0),
        ("schedule.warmup_steps", -1),
        ("schedule.warmup_lr", -0.1),
        ("schedule.warmup_until_train_error", 80.0),
        ("schedule.warmup_lr", 0.2),
        ("schedule.min_lr", 0.2),
        ("loss.label_smoothing", 1.0),
        ("model.drop_path", 1.0),
        ("data.size", 0),
        ("data.crop_pct", 1.5),
        ("data.channels", 4),
        ("data.workers", -1),
        ("batch_size", 0),
        ("epochs", 0),
        ("seed", -1),
        ("ema", 1.0),
        ("accumulate", 129),
        ("clip_norm", -1.0),
        ("early_stopping", -1),
        ("evaluate_every", 0),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_path_and_what_is_allowed(path: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^{path} is .*; allowed: .*--set {path}=VALUE$"):
        Run.from_dict(broken(path, value))


@pytest.mark.parametrize(("epochs", "iterations"), [(None, None), (3, 100)])
def test_exactly_one_duration_is_allowed(epochs: int | None, iterations: int | None) -> None:
    with pytest.raises(UserError, match="exactly one of them"):
        small_run(epochs=epochs, iterations=iterations)


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match=r"schedule\.milestones .* at least one for multistep"):
        ScheduleChoice("multistep")
    with pytest.raises(UserError, match="another warm-up"):
        ScheduleChoice("one-cycle", warmup_steps=10)
    with pytest.raises(UserError, match="another warm-up"):
        ScheduleChoice("cosine", warmup_steps=10, warmup_lr=0.01, warmup_until_train_error=0.8)
    with pytest.raises(UserError, match=r"schedule\.warmup_lr .* above 0"):
        ScheduleChoice("cosine", warmup_until_train_error=0.8)
    with pytest.raises(UserError, match="only cross-entropy has it"):
        LossChoice("mse", label_smoothing=0.1)
    with pytest.raises(UserError, match="0 with lbfgs"):
        OptimizerChoice("lbfgs", lr=1.0, weight_decay=1e-4)


@pytest.mark.parametrize(
    ("text", "updates", "seconds"),
    [("500 steps", 500, 0), ("1 step", 1, 0), ("10 minutes", 0, 600), ("0.5 minutes", 0, 30), ("1minute", 0, 60)],
)
def test_an_interval_counts_updates_or_seconds(text: str, updates: int, seconds: float) -> None:
    assert parse_interval(text) == (updates, seconds)


@pytest.mark.parametrize("text", ["", "10", "0 steps", "0 minutes", "1.5 steps", "-3 steps", "5 hours", "steps"])
def test_another_interval_is_refused(text: str) -> None:
    assert parse_interval(text) is None
    with pytest.raises(UserError, match=r"checkpoint_every is .*; allowed: N steps or N minutes"):
        small_run(checkpoint_every=text)
