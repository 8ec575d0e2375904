"""The CIFAR-10 recipe of He et al. 2015."""

from residuum.data.augmentations import Augmentation
from residuum.data.facts import DataFacts
from residuum.training.run import DataHandling, LossChoice, ModelChoice, OptimizerChoice, Run, ScheduleChoice


def he2015_cifar(facts: DataFacts, model: str | None = None) -> Run:
    """`residuum train cifar10 -r he2015-cifar -m resnet20` (also 32 to 1202, and plain20 to plain110).

    He et al. 2015, section 4.2; resnet110 warms up at 0.01 until the training error is below 80 %. The paper
    split its batch of 128 over two GPUs: `--set accumulate=2` gives batch normalisation its 64 images.
    Expected, test error % in table 6: 20 layers 8.75, 32 7.51, 44 7.17, 56 6.97, 110 6.43 (6.61 +- 0.16),
    1202 7.93; here not measured yet. Cost: 64,000 updates, 164 passes over 50,000 images.
    """
    name = model or "resnet20"
    warms_up = name == "resnet110"
    return Run(
        recipe="he2015-cifar",
        model=ModelChoice(name),
        data=DataHandling(
            size=32,
            normalisation="per-pixel-mean",
            augmentation=Augmentation(pad_and_crop=4, flip=True),
            channels=facts.channels,
        ),
        optimizer=OptimizerChoice("momentum", lr=0.1, momentum=0.9, weight_decay=1e-4),
        # Shares of the duration: 32,000 and 48,000 of 64,000, and in proportion when a run is made shorter.
        schedule=ScheduleChoice(
            "multistep",
            milestones=(0.5, 0.75),
            gamma=0.1,
            warmup_lr=0.01 if warms_up else 0.0,
            warmup_until_train_error=0.8 if warms_up else 0.0,
        ),
        loss=LossChoice("cross-entropy"),
        epochs=None,
        iterations=64_000,
        batch_size=128,
        precision="fp32",
    )
