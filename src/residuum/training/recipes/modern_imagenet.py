"""What the years since 2015 added to training a ResNet on ImageNet."""

from residuum.data.augmentations import Augmentation
from residuum.data.facts import DataFacts
from residuum.models.catalogue import find
from residuum.training.run import DataHandling, LossChoice, ModelChoice, OptimizerChoice, Run, ScheduleChoice


def modern_imagenet(facts: DataFacts, model: str | None = None) -> Run:
    """`residuum train IMAGENET_FOLDER -r modern-imagenet` (resnet50_v1_5, or any model made for 224x224).

    Random resized crops, label smoothing 0.1, mixup 0.2, cosine with 5 % warm-up, Nesterov, no decay on
    normalisation and biases, an average of the weights, the last batch normalisation of each block started at
    zero.
    Expected: not measured yet; the figure to beat is that of the authors' he2015-imagenet models.
    Cost: 100 epochs. The rate is meant for the whole batch: on g processes of 256 images each, add `--lr` 0.1
    x g.
    """
    name = model or "resnet50_v1_5"
    batch_size = 256
    return Run(
        recipe="modern-imagenet",
        model=ModelChoice(name, zero_gamma=find(name).has_shortcuts),
        data=DataHandling(
            size=224,
            crop_pct=224 / 256,
            interpolation="bicubic",
            normalisation="imagenet",
            augmentation=Augmentation(random_resized_crop=(0.08, 1.0), flip=True, mixup=0.2),
            channels=3,
        ),
        optimizer=OptimizerChoice(
            "nesterov",
            lr=0.1 * batch_size / 256,
            weight_decay=1e-4,
            decay_norm_and_bias=False,
        ),
        schedule=ScheduleChoice("cosine", warmup_steps=0.05),
        loss=LossChoice("cross-entropy", label_smoothing=0.1),
        epochs=100,
        iterations=None,
        batch_size=batch_size,
        ema=0.9999,
    )
