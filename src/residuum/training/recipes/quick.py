"""The default: a good result on any images, soon."""

from residuum.data.augmentations import Augmentation
from residuum.data.facts import DataFacts
from residuum.models.catalogue import MNIST, find, is_foreign
from residuum.training.run import DataHandling, LossChoice, ModelChoice, OptimizerChoice, Run, ScheduleChoice

_SMALL = 64  # pixels: up to here the nets for CIFAR, which keep the resolution; above, those for ImageNet


def quick(facts: DataFacts, model: str | None = None) -> Run:
    """`residuum train DATA`: input, model and duration follow from the data.

    Small images keep their size (at least 16 pixels) and go to resnet9_16; larger ones become 128 or 224 pixels
    wide for resnet18. Nesterov at a rate that follows the batch (AdamW for `torchvision/` and `timm/`
    networks), up for a fifth of the run and straight down to 0, label smoothing, light augmentation; mirror images
    only in colour, since grey ones are often digits or letters. Several labels an image: binary cross-entropy.
    Expected: CIFAR-10, test accuracy 90.4 % (seed 0). Cost: 18 epochs, more where there are fewer than 10,000 images;
    on CIFAR-10 they took 5 min 6 s on two CPU cores (AVX-512, bf16).
    """
    name = model or ("resnet9_16" if _side(facts) <= _SMALL else "resnet18")
    size = _input_size(facts, name)
    batch_size = max(8, min(128, facts.images // 8))
    return Run(
        recipe="quick",
        model=ModelChoice(name),
        data=DataHandling(
            size=size,
            crop_pct=0.875 if size >= 224 else 1.0,
            augmentation=_augmentation(size, facts.channels),
            channels=facts.channels,
        ),
        optimizer=_optimizer(name, batch_size),
        schedule=ScheduleChoice("linear", warmup_steps=0.2),
        loss=(
            LossChoice("binary-cross-entropy")
            if facts.multi_label
            else LossChoice("cross-entropy", label_smoothing=0.1)
        ),
        epochs=min(100, 18 + 10_000 // facts.images),
        iterations=None,
        batch_size=batch_size,
    )


def _optimizer(model: str, batch_size: int) -> OptimizerChoice:
    if is_foreign(model):
        # Without batch normalisation, as in VGG or a transformer, plain gradients at a high rate diverge.
        return OptimizerChoice("adamw", lr=5e-4 * batch_size / 128, weight_decay=0.05)
    return OptimizerChoice("nesterov", lr=0.2 * batch_size / 128, weight_decay=5e-4, decay_norm_and_bias=False)


def _side(facts: DataFacts) -> int:
    return min(facts.height, facts.width)


def _input_size(facts: DataFacts, model: str) -> int:
    """Near the images' own size, within what the network was designed for."""
    task = find(model).task
    designed_for = task.input_size[1]
    if is_foreign(model) or task is MNIST:
        return designed_for
    if designed_for <= _SMALL:
        return max(16, min(_SMALL, -(-_side(facts) // 4) * 4))
    if _side(facts) <= _SMALL:
        return _SMALL
    return 128 if _side(facts) <= 160 else designed_for


def _augmentation(size: int, channels: int) -> Augmentation:
    flip = channels == 3
    if size <= _SMALL:
        return Augmentation(pad_and_crop=size // 16, flip=flip)
    return Augmentation(random_resized_crop=(0.35, 1.0), flip=flip)
