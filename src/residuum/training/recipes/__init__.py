"""Recipes: functions from the facts of a data set to a run. `--set` changes any field of it."""

from collections.abc import Callable, Sequence

from residuum.data.facts import DataFacts
from residuum.errors import UserError, unknown_name
from residuum.training.overrides import apply_overrides
from residuum.training.recipes.d2l_fashion_mnist import d2l_fashion_mnist
from residuum.training.recipes.fast_cifar import fast_cifar
from residuum.training.recipes.he2015_cifar import he2015_cifar
from residuum.training.recipes.he2015_imagenet import he2015_imagenet
from residuum.training.recipes.he2016_cifar import he2016_cifar
from residuum.training.recipes.modern_imagenet import modern_imagenet
from residuum.training.recipes.quick import quick
from residuum.training.run import Run

Recipe = Callable[[DataFacts, str | None], Run]

RECIPES: dict[str, Recipe] = {
    "quick": quick,
    "he2015-cifar": he2015_cifar,
    "he2015-imagenet": he2015_imagenet,
    "he2016-cifar": he2016_cifar,
    "d2l-fashion-mnist": d2l_fashion_mnist,
    "fast-cifar": fast_cifar,
    "modern-imagenet": modern_imagenet,
}


def make_run(recipe: str, facts: DataFacts, model: str | None = None, overrides: Sequence[str] = ()) -> Run:
    """The recipe's run for this data and model (None: the recipe's own), with the overrides applied.

    A recipe may depend on the model, so one named by an override counts as if it were given as `model`.
    Raises UserError for an unknown recipe or field, a bad value, and a loss that cannot use several labels an
    image.
    """
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    build = RECIPES[recipe]
    chosen = apply_overrides(build(facts, model), overrides).model.name
    run = apply_overrides(build(facts, chosen), overrides)
    if facts.multi_label and run.loss.name == "cross-entropy":
        raise UserError(
            f"recipe {recipe!r} trains with cross-entropy, but these images have several labels; take the "
            "recipe 'quick', or add --set loss.name=binary-cross-entropy --set loss.label_smoothing=0"
        )
    return run
