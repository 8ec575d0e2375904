"""The textbook recipe for ResNet-18 on Fashion-MNIST."""

from residuum.data.facts import DataFacts
from residuum.training.run import DataHandling, LossChoice, ModelChoice, OptimizerChoice, Run, ScheduleChoice


def d2l_fashion_mnist(facts: DataFacts, model: str | None = None) -> Run:
    """`residuum train fashion-mnist -r d2l-fashion-mnist`.

    "Dive into Deep Learning" (Chinese edition), ResNet: 10 epochs of plain SGD at 0.05, batch 256, images
    resized to 96x96, no augmentation; pixels in [0, 1] as they are.
    Expected: the book prints loss 0.012, training accuracy 0.997, test accuracy 0.893; its readers report
    test accuracy 0.878 to 0.923; here 0.866 after the first epoch, the other nine not measured yet.
    Cost: 2,340 updates; the book prints 5,032.7 examples/s on a GPU it does not name.
    """
    return Run(
        recipe="d2l-fashion-mnist",
        model=ModelChoice(model or "resnet18"),
        data=DataHandling(size=96, normalisation="none", channels=facts.channels),
        optimizer=OptimizerChoice("sgd", lr=0.05),
        schedule=ScheduleChoice("constant"),
        loss=LossChoice("cross-entropy"),
        epochs=10,
        iterations=None,
        batch_size=256,
        precision="fp32",
    )
