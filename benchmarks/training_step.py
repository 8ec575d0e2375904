"""A training step without a run around it: the parts that `residuum train` puts together, on images that are there."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from residuum.hardware import autocast
from residuum.training.captured import UPDATES_BEFORE, CapturedUpdate
from residuum.training.losses import cross_entropy
from residuum.training.optimizers import build_optimizer
from residuum.training.run import OptimizerChoice


def forward_and_backward(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    """Add the gradients of the mean loss: the forward pass in autocast, the loss in float32."""
    with autocast(images.device, dtype):
        logits = network(images)
    cross_entropy(logits.float(), labels, weights=None, label_smoothing=0.0).backward()


def random_batch(images: int, input_size: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """`images` random ones of (C, H, W), channels last, and labels of the first class."""
    inputs = torch.rand(images, *input_size, device=device).contiguous(memory_format=torch.channels_last)
    return inputs, torch.zeros(images, dtype=torch.int64, device=device)


def training_step(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """A function that makes one update on the batch, with fused SGD and momentum; on a GPU it replays a graph of it."""
    optimizer = build_optimizer(OptimizerChoice("momentum", lr=1e-3, momentum=0.9, weight_decay=1e-4), network)

    def update(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        forward_and_backward(network, images, labels, dtype)
        optimizer.step()

    if images.device.type != "cuda":
        return lambda: update(images, labels)
    captured = CapturedUpdate(update, optimizer)
    for _ in range(UPDATES_BEFORE + 1):  # the last of them captures
        captured(images, labels)
    return lambda: captured(images, labels)
