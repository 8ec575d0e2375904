"""How much a run computes, in multiply-adds."""

from functools import lru_cache

from residuum.models.catalogue import create_skeleton
from residuum.models.summary import Summary, summarise
from residuum.training.preparation import model_args
from residuum.training.run import ModelChoice, Run

BACKWARD = 2
"""A backward pass computes twice what its forward pass does: a gradient of the input, one of the weights."""


def training_work(run: Run, classes: int, images: int) -> int:
    """The multiply-adds of training on `images` images: forward and backward, evaluations left out."""
    batch = min(run.batch_size, images)  # an epoch leaves out the rest that fills no batch
    seen = run.total_iterations(images // batch) * batch
    return (1 + BACKWARD) * size_of(run, classes).multiply_adds * seen


def size_of(run: Run, classes: int) -> Summary:
    """Parameters and multiply-adds of the run's network on one of its images."""
    return _size(run.model, run.data.channels, run.data.size, classes)


@lru_cache(maxsize=256)
def _size(choice: ModelChoice, channels: int, size: int, classes: int) -> Summary:
    network = create_skeleton(choice.name, num_classes=classes, in_channels=channels, **model_args(choice))
    return summarise(network, (channels, size, size))
