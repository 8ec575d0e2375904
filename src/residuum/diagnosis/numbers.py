"""Tensors in a few numbers, in double precision where the device has it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of all elements: mean, population standard deviation, and the root of the mean square."""

    mean: float
    std: float
    rms: float


NOTHING = Moments(math.nan, math.nan, math.nan)


def precise(values: Tensor) -> Tensor:
    """The values apart from any graph, as float64 (on Apple's GPU, which has none, float32)."""
    return values.detach().to(torch.float32 if values.device.type == "mps" else torch.float64)


def moments(values: Tensor) -> Moments:
    """The moments; of no elements NaN."""
    if not values.numel():
        return NOTHING
    exact = precise(values)
    mean, square = exact.mean().item(), exact.square().mean().item()
    return Moments(mean, exact.std(correction=0).item(), math.sqrt(square))


def rows(values: Tensor, images: int) -> Tensor | None:
    """(images, D): what belongs to each image, where an axis tells: the first, also with windows, or the second."""
    if values.ndim and values.numel() and len(values) % images == 0:
        return precise(values).reshape(images, -1)
    if values.ndim > 1 and values.numel() and values.shape[1] == images:
        return precise(values).transpose(0, 1).reshape(images, -1)
    return None


def variation(values: Tensor, images: int) -> float:
    """How much the directions of images differ, in [0, 1]: 1 - |the mean of each image's values at length one|^2.

    It is the mean over all pairs, each image with itself included, of 1 - cosine. NaN where no axis tells images, or
    all is zero.
    """
    found = rows(values, images)
    if found is None or not found.any():
        return math.nan
    units = found / torch.linalg.vector_norm(found, dim=1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
    kept = units[found.any(dim=1)]
    return (kept - kept.mean(dim=0)).square().sum(dim=1).mean().item()  # 1 - |mean|^2, of which nothing cancels


def spread(values: Tensor, images: int) -> float:
    """How far images are apart, in the units of the values: the root mean square of each element's distance from its
    mean over images. An offset that all images share does not count. NaN where no axis tells images.
    """
    found = rows(values, images)
    return math.nan if found is None else found.var(dim=0, correction=0).mean().sqrt().item()


def lengths(values: Tensor, images: int) -> Tensor | None:
    """(images,) norms of what belongs to each image; None where no axis tells."""
    found = rows(values, images)
    return None if found is None else torch.linalg.vector_norm(found, dim=1).cpu()


def norm(values: Tensor) -> float:
    """The Euclidean norm of all elements."""
    return float(torch.linalg.vector_norm(precise(values)).item())
