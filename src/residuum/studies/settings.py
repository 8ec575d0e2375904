"""The common setting of a study's runs at each scale, so that arms differ in what is asked and nothing else."""

from residuum.data.facts import DataFacts
from residuum.studies.study import ScaleName
from residuum.training.overrides import apply_overrides
from residuum.training.recipes.he2015_cifar import he2015_cifar
from residuum.training.recipes.he2015_imagenet import he2015_imagenet
from residuum.training.run import Run

LARGE = 64  # pixels: above, images are for the networks of ImageNet

WARM_UP_OF_2016 = (
    "schedule.warmup_until_train_error=0",
    "schedule.warmup_steps=400",
    "schedule.warmup_lr=0.01",
    "schedule.warmup_shape=constant",
)
"""What He et al. 2016 begin every network for CIFAR with."""

_NO_AUGMENTATION = ("data.augmentation.pad_and_crop=0", "data.augmentation.flip=false")


def base_run(scale: ScaleName, facts: DataFacts, model: str, *overrides: str) -> Run:
    """He et al. 2015, section 4.2 (3.4 for images above 64 pixels), at `scale`; `overrides` as after `--set`.

    "smoke": 12 epochs of batches of 64, images as they are. "small": 12 epochs of 128, padded and cropped, mirrored in
    colour only, since grey ones are often digits or letters. "paper": the recipe as it is. All in fp32, so that a
    result is not that of a processor's short numbers.
    """
    if is_large(facts):
        return apply_overrides(he2015_imagenet(facts, model), (*_large(scale), *overrides))
    size = f"data.size={min(32, facts.height, facts.width)}"
    return apply_overrides(he2015_cifar(facts, model), (*_SMALL_IMAGES[scale], size, *_flip(facts), *overrides))


def is_large(facts: DataFacts) -> bool:
    """Whether the images are for the networks of ImageNet rather than those of CIFAR."""
    return min(facts.height, facts.width) > LARGE


def _flip(facts: DataFacts) -> tuple[str, ...]:
    return () if facts.channels == 3 else ("data.augmentation.flip=false",)


def _large(scale: ScaleName) -> tuple[str, ...]:
    if scale == "paper":
        return ()
    size, epochs, batch = (64, 4, 16) if scale == "smoke" else (112, 12, 64)
    sides = f"data.augmentation.shorter_side={size * 256 // 224},{size * 480 // 224}"  # in proportion to the input
    steps = ("schedule.name=multistep", "schedule.milestones=0.5,0.75")  # a plateau takes longer than this
    return f"data.size={size}", sides, f"epochs={epochs}", f"batch_size={batch}", *steps


_SMALL_IMAGES: dict[ScaleName, tuple[str, ...]] = {
    "smoke": (*_NO_AUGMENTATION, "epochs=12", "batch_size=64"),
    "small": ("epochs=12", "batch_size=128"),
    "paper": (),
}
