"""The CIFAR recipe of He et al. 2016 (pre-activation)."""

from dataclasses import replace

from residuum.data.facts import DataFacts
from residuum.training.recipes.he2015_cifar import he2015_cifar
from residuum.training.run import Run, ScheduleChoice


def he2016_cifar(facts: DataFacts, model: str | None = None) -> Run:
    """`residuum train cifar10 -r he2016-cifar -m preact_resnet164` (also 110 and 1001; cifar100 likewise).

    He et al. 2015's recipe with 400 updates at 0.01 first, for every net (He et al. 2016). The 1001-layer
    net's better result took batches of 64: `-b 64`.
    Expected, median test error % of five runs with full pre-activation: CIFAR-10 110 layers 6.37, 164 5.46,
    1001 4.92 (4.62 with batch 64); CIFAR-100 164 24.33, 1001 22.71; here not measured yet.
    Cost: 64,000 updates, 164 passes over 50,000 images.
    """
    return replace(
        he2015_cifar(facts, model or "preact_resnet164"),
        recipe="he2016-cifar",
        schedule=ScheduleChoice(
            "multistep",
            milestones=(0.5, 0.75),
            gamma=0.1,
            warmup_steps=400,
            warmup_lr=0.01,
            warmup_shape="constant",
        ),
    )
