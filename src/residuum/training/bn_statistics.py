"""Batch-normalisation statistics as a true average over training data, in place of a moving one."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from residuum.distributed import World

_ALONE = World()


@torch.no_grad()
def recompute_bn(network: nn.Module, batches: Iterable[Tensor], world: World = _ALONE) -> None:
    """Set each running mean and variance to its plain average over `batches`.

    `batches`: (N, C, H, W) normalised images, equally many on every process of `world`. The network is left
    in evaluation mode. Unlike `torch.optim.swa_utils.update_bn`, frozen layers keep their statistics, and
    dropout and stochastic depth are off.
    """
    network.train()
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
    network.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # to PyTorch: the cumulative average
        layer.train()
    for images in batches:
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
        for statistic in (layer.running_mean, layer.running_var):
            assert statistic is not None
            world.sum(statistic).div_(world.size)
