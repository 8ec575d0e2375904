"""An update as one CUDA graph: launched whole, where its hundreds of small kernels would each wait for Python."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

UPDATES_BEFORE = 3  # made one kernel at a time: they choose algorithms and make the optimiser's state

Update = Callable[[Tensor, Tensor], None]
"""One update of the weights on images (N, C, S, S) and their labels, all of it on the device and none of it read."""


class CapturedUpdate:
    """Makes `update` on batches of one shape by replaying a graph of it, and on others as it is.

    The graph holds the addresses of weights, optimiser state and learning rate, which becomes a tensor. Weights may be
    loaded in place; after the optimiser's state was loaded, another CapturedUpdate is needed.
    """

    def __init__(self, update: Update, optimizer: Optimizer) -> None:
        self._update, self._optimizer = update, optimizer
        self._replay: Callable[[], None] | None = None
        self._images, self._labels = torch.empty(0), torch.empty(0)
        self._made: Counter[tuple[torch.Size, torch.Size]] = Counter()
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        rate = torch.tensor(0.0, device=optimizer.param_groups[0]["params"][0].device)
        for group in optimizer.param_groups:
            group["lr"] = rate.fill_(float(group["lr"]))

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        shapes = images.shape, labels.shape
        if self._replay is None:
            self._made[shapes] += 1
            if self._made[shapes] <= UPDATES_BEFORE:
                self._update(images, labels)
                return
            self._shapes, self._images, self._labels = shapes, images.clone(), labels.clone()
            self._replay = record(lambda: self._update(self._images, self._labels))
        if shapes != self._shapes:
            self._update(images, labels)
            return
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()


def record(work: Callable[[], None]) -> Callable[[], None]:
    """What does `work` again each time it is called, with the same memory. The recording itself does nothing."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a checkpoint may be written meanwhile
        work()
    return graph.replay


def can_be_captured(optimizer: Optimizer) -> bool:
    """Whether the optimiser's step may be part of a graph: its state must not count on the host."""
    return isinstance(optimizer, SGD)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group, where a graph reads it, too; rounded to the 32 bits it has there."""
    rounded = float(np.float32(rate))
    tensors = {id(group["lr"]): group["lr"] for group in optimizer.param_groups if isinstance(group["lr"], Tensor)}
    for tensor in tensors.values():
        tensor.fill_(rounded)
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = rounded
