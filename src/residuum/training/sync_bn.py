"""Batch normalisation whose batch is that of all processes together.

Ioffe and Szegedy 2015, algorithm 1, over the global batch; the gradient is that of their section 3.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from residuum.errors import UserError, listed


def synchronise_bn(network: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch normalisation of `network` normalise, in training, over the batches of all processes.

    On CUDA the layers become PyTorch's `nn.SyncBatchNorm`, elsewhere `GlobalBatchNorm`. They are changed in place:
    state dict, mode, frozen layers and hooks stay, and in evaluation or in one process alone nothing else is computed
    than before. To be done before DistributedDataParallel wraps the network, which is returned. Raises UserError for
    a kind of batch normalisation whose work beside the normalising is not known.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    kinds = _KINDS_ON_CUDA if device.type == "cuda" else _KINDS
    unknown = sorted({type(layer).__name__ for layer in layers} - set(kinds))
    if unknown:
        raise UserError(f"cannot synchronise {listed(unknown, 3)} between processes; leave out --sync-bn")
    for layer in layers:
        # Not convert_sync_batchnorm: its new layers lose the fixed mode of a frozen one and the activation in timm's.
        layer.__class__ = kinds[type(layer).__name__]
        layer.__dict__["process_group"] = None  # all processes; nn.SyncBatchNorm reads it
    return network


class GlobalBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d`, `2d` and `3d` over all processes, on any device whose processes can gather tensors.

    The processes may hold different numbers of images. Statistics have 32 bits also for images of fewer.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {input.ndim} axes")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or _processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        mean, variance, count = _global_statistics(input.detach())
        if self.track_running_stats:
            self._track(mean, variance * (count / (count - 1)))
        return _Normalise.apply(input, self.weight, self.bias, mean, variance, count, self.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            assert running is not None
            running.mul_(1.0 - share).add_(new, alpha=share)


class _WithActivation(nn.Module):
    """In front of a batch normalisation: what timm's BatchNormAct2d does after it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


class _GlobalBatchNormAct(_WithActivation, GlobalBatchNorm):
    pass


class _SyncBatchNormAct(_WithActivation, nn.SyncBatchNorm):
    pass


_PLAIN = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
_Kinds = Mapping[str, type[_BatchNorm]]
_KINDS: _Kinds = {**dict.fromkeys(_PLAIN, GlobalBatchNorm), "BatchNormAct2d": _GlobalBatchNormAct}
_KINDS_ON_CUDA: _Kinds = {**dict.fromkeys(_PLAIN, nn.SyncBatchNorm), "BatchNormAct2d": _SyncBatchNormAct}


class _Normalise(torch.autograd.Function):
    """Normalise images with the mean and variance of all processes' images, on which their gradient depends too."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(images, weight, bias, mean, (variance + eps).rsqrt(), count)
        return F.batch_norm(images, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, bias, mean, inverse_deviation, count = ctx.saved_tensors
        axes = _all_but_channels(images)
        normalised = (images - _by_channel(mean, images)) * _by_channel(inverse_deviation, images)
        g = gradient.to(mean.dtype)
        own_sums = torch.stack([g.sum(axes), (g * normalised).sum(axes)])
        sums = own_sums.clone()
        dist.all_reduce(sums)
        mean_g, mean_g_normalised = (_by_channel(part, images) for part in sums / count)
        scale = inverse_deviation if weight is None else inverse_deviation * weight
        of_images = (g - mean_g - normalised * mean_g_normalised) * _by_channel(scale, images)
        of_bias, of_weight = own_sums
        return (
            of_images.to(images.dtype),
            None if weight is None else of_weight,
            None if bias is None else of_bias,
            *[None] * 4,
        )


def _global_statistics(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean and the biased variance of each channel over all processes, each (C,), and over how many values.

    Each process centres on its own mean, so that nothing cancels: Chan, Golub and LeVeque 1979.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    axes = _all_but_channels(images)
    total = images.sum(axes)
    count = torch.full_like(total, images.numel() // images.shape[1])
    own_mean = total / count.clamp(min=1)
    squares = (images - _by_channel(own_mean, images)).square().sum(axes)
    own = torch.stack([count, own_mean, squares])
    gathered = [torch.empty_like(own) for _ in range(_processes())]
    dist.all_gather(gathered, own)
    counts, means, all_squares = torch.stack(gathered, dim=1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    variance = (all_squares + counts * (means - mean).square()).sum(0) / count
    return mean, variance, count


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _all_but_channels(images: Tensor) -> list[int]:
    return [axis for axis in range(images.ndim) if axis != 1]


def _by_channel(values: Tensor, images: Tensor) -> Tensor:
    """(C,) in a shape that broadcasts over `images` (N, C, ...)."""
    return values.view(1, -1, *[1] * (images.ndim - 2))
