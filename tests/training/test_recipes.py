"""Recipes: those of the papers against the published facts, and all of them over many kinds of data."""

import json
from dataclasses import replace

import pytest

from residuum.data.augmentations import Augmentation
from residuum.data.facts import DataFacts
from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.training.recipes import RECIPES, make_run
from residuum.training.run import LossChoice, OptimizerChoice, Run
from residuum.training.schedules import build_schedule


def facts(images: int, side: int, channels: int = 3, classes: int = 10, multi_label: bool = False) -> DataFacts:
    return DataFacts(
        images=images,
        classes=classes,
        channels=channels,
        height=side,
        width=side,
        multi_label=multi_label,
    )


DIGITS = facts(1437, 8, channels=1)
MNIST = facts(60_000, 28, channels=1)
CIFAR10 = facts(50_000, 32)
IMAGENET = facts(1_281_167, 400, classes=1000)
HANDFUL = facts(12, 300, classes=2)
DATA = {"digits": DIGITS, "mnist": MNIST, "cifar10": CIFAR10, "imagenet": IMAGENET, "handful": HANDFUL}


def rates(run: Run, steps: tuple[int, ...], train_error: float = 0.5) -> list[float]:
    """The learning rates at these updates, for a training error that has been `train_error` for long."""
    schedule = build_schedule(run.schedule, run.optimizer.lr, run.total_iterations(steps_per_epoch=390))
    for _ in range(200):
        schedule.observe_batch(train_error)
    return [schedule.lr(step) for step in steps]


def test_the_recipes_are_those_of_the_design() -> None:
    assert [*RECIPES] == [
        "quick",
        "he2015-cifar",
        "he2015-imagenet",
        "he2016-cifar",
        "d2l-fashion-mnist",
        "fast-cifar",
        "modern-imagenet",
    ]


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_makes_a_run_for_any_data_that_goes_through_json(recipe: str, data: str) -> None:
    run = make_run(recipe, DATA[data])
    assert run.recipe == recipe
    assert run.data.size >= 16
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    schedule = build_schedule(run.schedule, run.optimizer.lr, run.total_iterations(10))
    assert 0 <= schedule.lr(0) <= run.optimizer.lr


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_names_a_network_that_exists_with_its_options(recipe: str) -> None:
    run = make_run(recipe, CIFAR10)
    create_model(run.model.name, num_classes=10, in_channels=run.data.channels, zero_gamma=run.model.zero_gamma)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_says_its_command_its_expected_result_and_its_cost(recipe: str) -> None:
    text = RECIPES[recipe].__doc__ or ""
    assert "residuum train" in text
    assert "Expected" in text
    assert "Cost" in text


def test_he2015_cifar_is_section_4_2() -> None:
    run = make_run("he2015-cifar", CIFAR10)
    assert run.total_iterations(steps_per_epoch=390) == 64_000
    assert run.batch_size == 128
    assert run.optimizer == OptimizerChoice("momentum", lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert run.optimizer.decay_norm_and_bias
    assert run.data.augmentation == Augmentation(pad_and_crop=4, flip=True)
    assert (run.data.size, run.data.crop_pct, run.data.normalisation) == (32, 1.0, "per-pixel-mean")
    assert run.loss == LossChoice("cross-entropy")
    got = rates(run, (0, 31_999, 32_000, 47_999, 48_000, 63_999))
    assert got == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("named_by", ["model", "override"])
def test_he2015_cifar_warms_up_resnet110_and_no_other(named_by: str) -> None:
    def run_of(model: str) -> Run:
        if named_by == "model":
            return make_run("he2015-cifar", CIFAR10, model)
        return make_run("he2015-cifar", CIFAR10, overrides=[f"model.name={model}"])

    warm = run_of("resnet110")
    assert rates(warm, (0, 399), train_error=0.85) == [0.01, 0.01]
    assert rates(warm, (0, 399, 32_000), train_error=0.79) == pytest.approx([0.1, 0.1, 0.01])
    assert replace(warm, model=run_of("resnet56").model, schedule=run_of("resnet56").schedule) == run_of("resnet56")
    assert rates(run_of("resnet56"), (0,), train_error=0.9) == [0.1]
    assert rates(run_of("plain110"), (0,), train_error=0.9) == [0.1]


def test_he2015_imagenet_is_section_3_4() -> None:
    run = make_run("he2015-imagenet", IMAGENET)
    assert run.total_iterations(steps_per_epoch=5004) == 600_000
    assert run.batch_size == 256
    assert run.optimizer == OptimizerChoice("momentum", lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert run.data.augmentation == Augmentation(shorter_side=(256, 480), flip=True, lighting=0.1)
    assert run.data.normalisation == "per-pixel-mean"
    assert round(run.data.size / run.data.crop_pct) == 256
    assert (run.schedule.name, run.schedule.gamma) == ("plateau", 0.1)
    assert run.model.shortcut is None


def test_he2016_cifar_holds_every_net_at_0_01_for_400_updates() -> None:
    run = make_run("he2016-cifar", CIFAR10)
    got = rates(run, (0, 399, 400, 31_999, 32_000, 48_000))
    assert got == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.001])
    paper = make_run("he2015-cifar", CIFAR10, "preact_resnet164")
    assert replace(run, recipe=paper.recipe, schedule=paper.schedule) == paper


def test_d2l_fashion_mnist_is_the_books() -> None:
    run = make_run("d2l-fashion-mnist", MNIST)
    assert (run.model.name, run.data.channels, run.data.size) == ("resnet18", 1, 96)
    assert (run.epochs, run.batch_size, run.schedule.name) == (10, 256, "constant")
    assert run.optimizer == OptimizerChoice("sgd", lr=0.05)
    assert run.data.augmentation == Augmentation()
    assert run.data.normalisation == "none"


def test_quick_fits_the_input_and_the_network_to_the_images() -> None:
    chosen = {name: make_run("quick", data) for name, data in DATA.items()}
    assert {name: (run.model.name, run.data.size) for name, run in chosen.items()} == {
        "digits": ("resnet9_16", 16),
        "mnist": ("resnet9_16", 28),
        "cifar10": ("resnet9_16", 32),
        "imagenet": ("resnet18", 224),
        "handful": ("resnet18", 224),
    }
    assert chosen["imagenet"].data.crop_pct == 0.875
    assert make_run("quick", facts(5000, 96)).data.size == 128


def test_quick_fits_the_input_to_a_named_network() -> None:
    assert make_run("quick", CIFAR10, "resnet18").data.size == 64
    assert make_run("quick", IMAGENET, "resnet20").data.size == 64
    assert make_run("quick", DIGITS, "lenet5").data.size == 32
    assert make_run("quick", CIFAR10, "torchvision/inception_v3").data.size == 299


def test_quick_mirrors_colour_images_alone_since_grey_ones_may_be_digits() -> None:
    assert make_run("quick", CIFAR10).data.augmentation == Augmentation(pad_and_crop=2, flip=True)
    assert not make_run("quick", DIGITS).data.augmentation.flip


def test_quick_takes_smaller_batches_and_rates_on_little_data() -> None:
    assert make_run("quick", HANDFUL).batch_size == 8
    little, much = make_run("quick", facts(400, 32)), make_run("quick", CIFAR10)
    assert little.batch_size < much.batch_size == 128
    assert little.optimizer.lr / little.batch_size == pytest.approx(much.optimizer.lr / much.batch_size)


def test_quick_trains_other_peoples_networks_by_adamw_since_they_may_lack_batch_normalisation() -> None:
    assert make_run("quick", MNIST, "torchvision/vgg16").optimizer.name == "adamw"
    assert make_run("quick", MNIST, "preact_resnet164").optimizer.name == "nesterov"


def test_quick_looks_longer_at_few_images() -> None:
    epochs = {name: make_run("quick", data).epochs for name, data in DATA.items()}
    assert epochs == {"handful": 100, "digits": 24, "mnist": 18, "cifar10": 18, "imagenet": 18}


def test_several_labels_an_image_need_a_loss_for_them() -> None:
    tags = facts(5000, 32, multi_label=True)
    assert make_run("quick", tags).loss == LossChoice("binary-cross-entropy")
    with pytest.raises(UserError, match="several labels; take the recipe 'quick'"):
        make_run("he2015-cifar", tags)
    changed = make_run("he2015-cifar", tags, overrides=["loss.name=binary-cross-entropy"])
    assert changed.loss.name == "binary-cross-entropy"


def test_overrides_change_any_recipe() -> None:
    run = make_run("he2015-cifar", CIFAR10, "resnet32", ["epochs=2", "optimiser.lr=0.05"])
    assert (run.model.name, run.epochs, run.iterations, run.optimizer.lr) == ("resnet32", 2, None, 0.05)
    assert rates(run, (0, 390, 779)) == pytest.approx([0.05, 0.005, 0.0005])


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown recipe 'he2015_cifar'; did you mean he2015-cifar"):
        make_run("he2015_cifar", CIFAR10)
