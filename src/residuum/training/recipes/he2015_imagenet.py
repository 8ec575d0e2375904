"""The ImageNet recipe of He et al. 2015."""

from residuum.data.augmentations import Augmentation
from residuum.data.facts import DataFacts
from residuum.training.run import DataHandling, LossChoice, ModelChoice, OptimizerChoice, Run, ScheduleChoice


def he2015_imagenet(facts: DataFacts, model: str | None = None) -> Run:
    """`residuum train IMAGENET_FOLDER -r he2015-imagenet -m resnet50` (18 to 152, plain18, plain34).

    He et al. 2015, section 3.4. The paper does not say how long it waits on a plateau: 5 epochs here. Its
    batch of 256 is the whole one: on g processes take `-b` 256/g. Expected, validation error % top-1/top-5:
    one crop (the authors' released models) 50 layers 24.7/7.8, 101 23.6/7.1, 152 23.0/6.7; ten crops (table
    3) 34 B 24.52/7.46, 50 22.85/6.71, 101 21.75/6.05, 152 21.43/5.71; here not measured yet.
    Cost: up to 600,000 updates, 120 passes over 1.28 million images.
    """
    return Run(
        recipe="he2015-imagenet",
        model=ModelChoice(model or "resnet50"),
        data=DataHandling(
            size=224,
            crop_pct=224 / 256,
            normalisation="per-pixel-mean",
            # 0.1: the standard deviation of the colour augmentation in the paper it is taken from (AlexNet)
            augmentation=Augmentation(shorter_side=(256, 480), flip=True, lighting=0.1),
            channels=3,
        ),
        optimizer=OptimizerChoice("momentum", lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleChoice("plateau", gamma=0.1, patience=5),
        loss=LossChoice("cross-entropy"),
        epochs=None,
        iterations=600_000,
        batch_size=256,
        precision="fp32",
    )
