from typing import Any

import pytest

from residuum.data.augmentations import Augmentation
from residuum.errors import UserError
from residuum.models.shortcuts import SHORTCUTS
from residuum.training.overrides import apply_overrides, describe_difference
from residuum.training.run import DataHandling, LossChoice, ModelChoice, OptimizerChoice, Run, ScheduleChoice

RUN = Run(
    recipe="test",
    model=ModelChoice("resnet20"),
    data=DataHandling(size=32, augmentation=Augmentation(pad_and_crop=4)),
    optimizer=OptimizerChoice("momentum", lr=0.1),
    schedule=ScheduleChoice("multistep", milestones=(0.5,)),
    loss=LossChoice("cross-entropy", label_smoothing=0.1),
    epochs=10,
    iterations=None,
    batch_size=128,
)


def value_of(run: Run, path: str) -> Any:
    value: Any = run
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.lr=0.05", 0.05),
        ("optimizer.lr=1", 1.0),
        ("optimizer.lr = 5e-2", 0.05),
        ("optimizer.name=adamw", "adamw"),
        ("optimizer.betas=0.8,0.95", (0.8, 0.95)),
        ("batch_size=64", 64),
        ("model.shortcut=A", "A"),
        ("model.shortcut=none", "none"),
        ("model.shortcut=null", None),
        ("model.weights=runs/a=b", "runs/a=b"),
        ("model.zero_gamma=true", True),
        ("data.augmentation.flip=yes", True),
        ("data.augmentation.flip=False", False),
        ("data.augmentation.shorter_side=256,480", (256, 480)),
        ("data.augmentation.shorter_side=none", None),
        ("data.workers=2", 2),
        ("schedule.milestones=[0.5,0.75]", (0.5, 0.75)),
        ("schedule.milestones=(0.5, 0.75)", (0.5, 0.75)),
        ("schedule.milestones=32000", (32_000.0,)),
        ("schedule.patience=3", 3),
        ("loss.class_weights=none", "none"),
    ],
)
def test_an_override_is_read_as_its_fields_type(override: str, expected: Any) -> None:
    path = override.partition("=")[0].strip()
    got = value_of(apply_overrides(RUN, [override]), path)
    assert got == expected
    assert type(got) is type(expected)


def test_nothing_else_changes() -> None:
    assert describe_difference(RUN, apply_overrides(RUN, ["optimizer.lr=0.05"])) == ["optimizer.lr: 0.1 -> 0.05"]
    assert apply_overrides(RUN, []) == RUN


def test_the_shortcuts_of_a_run_are_those_of_the_networks() -> None:
    for shortcut in SHORTCUTS:
        assert apply_overrides(RUN, [f"model.shortcut={shortcut}"]).model.shortcut == shortcut
    with pytest.raises(UserError, match="D"):
        apply_overrides(RUN, ["model.shortcut=D"])


def test_a_recipe_is_not_renamed_by_setting_it() -> None:
    with pytest.raises(UserError, match="-r he2015-cifar"):
        apply_overrides(RUN, ["recipe=he2015-cifar"])


def test_british_spelling_is_understood() -> None:
    assert apply_overrides(RUN, ["optimiser.lr=0.05"]).optimizer.lr == 0.05


def test_the_last_of_several_counts_and_they_are_checked_together() -> None:
    run = apply_overrides(RUN, ["loss.name=mse", "optimizer.lr=0.5", "optimizer.lr=0.2", "loss.label_smoothing=0"])
    assert (run.optimizer.lr, run.loss) == (0.2, LossChoice("mse"))


def test_one_duration_takes_the_place_of_the_other() -> None:
    run = apply_overrides(RUN, ["iterations=100"])
    assert (run.epochs, run.iterations) == (None, 100)
    assert apply_overrides(run, ["epochs=3"]).iterations is None
    assert apply_overrides(RUN, ["epochs=none", "iterations=100"]) == run


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=fast", "^optimizer.lr takes a number, got 'fast'$"),
        ("optimizer.lr=", "^optimizer.lr takes a number, got ''$"),
        ("optimizer.lr=inf", "^optimizer.lr takes a number, got inf$"),
        ("batch_size=1e3", "^batch_size takes a whole number, got '1e3'$"),
        ("model.zero_gamma=2", "^model.zero_gamma takes true or false, got '2'$"),
        ("optimizer.betas=0.9", "^optimizer.betas takes 2 numbers"),
        ("schedule.milestones=a,b", "^schedule.milestones takes a number, got 'a'"),
        ("epochs=none", "exactly one of them"),
        ("optimizer.lr=-1", "^optimizer.lr is -1.0; allowed: above 0"),
        ("optimizer.lrr=1", "^unknown field 'optimizer.lrr'; did you mean optimizer.lr"),
        ("optimiser.lrr=1", "^unknown field 'optimizer.lrr'; did you mean optimizer.lr"),
        ("lr=1", r"^unknown field 'lr'; did you mean optimizer.lr\?$"),
        (
            "augmentation.flip=true",
            r"^unknown field 'augmentation.flip'; did you mean data.augmentation.flip\?$",
        ),
        ("zzz=1", "^unknown field 'zzz'; run.json"),
        ("model=resnet20", "^'model' is a group of fields; set one of them: model.name, "),
        ("optimizer.name=sdg", "^unknown optimizer.name 'sdg'; did you mean sgd"),
        ("optimizer.lr", "^--set takes FIELD=VALUE, got 'optimizer.lr'"),
        ("=3", "^--set takes FIELD=VALUE, got '=3'"),
    ],
)
def test_a_wrong_override_is_refused_with_what_was_got_and_what_is_right(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        apply_overrides(RUN, [override])


def test_differences_are_listed_field_by_field() -> None:
    other = apply_overrides(RUN, ["seed=1", "data.augmentation.flip=true", "schedule.milestones=0.5,0.75"])
    assert describe_difference(RUN, RUN) == []
    assert describe_difference(RUN, other) == [
        "data.augmentation.flip: False -> True",
        "schedule.milestones: (0.5,) -> (0.5, 0.75)",
        "seed: 0 -> 1",
    ]
