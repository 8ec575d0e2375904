"""Gradients that all processes share, summed in one order from the first update on."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def share_gradients(network: nn.Module, images: Tensor) -> DistributedDataParallel:
    """`network`, wrapped so that backward averages its gradients over all processes.

    PyTorch lays the gradients out anew after the first backward pass, and a sum over three or more processes is
    rounded as they lie. A pass made here, which leaves no other trace, gives a resumed run's first update the rounding
    that the same update has in a run that nothing interrupted. images: (N, C, H, W), any that the network can train on.
    """
    wrapped = DistributedDataParallel(network)
    before = [buffer.clone() for buffer in network.buffers()]
    network.train()
    wrapped(images.contiguous(memory_format=torch.channels_last)).sum().backward()
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)
    network.zero_grad()
    return wrapped
