"""Random boxes, from random numbers alone, and the resampling of what they enclose.

Resampling is done in whole numbers, so one image gives the same bytes alone in a worker, in a batch, and on any
device.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from residuum.hardware import upload

Boxes = NDArray[np.int64]
"""(N, 4): top, left, height, width in source pixels."""
Floats = NDArray[np.float64]

TRIES = 10
RESIZED_CROP_NUMBERS = 2 * TRIES + 2
SHORTER_SIDE_NUMBERS = 3
ERASING_NUMBERS = 2 * TRIES + 2
_RATIO = (3 / 4, 4 / 3)
_MIDDLE = math.nextafter(0.5, 0)  # places a box half a pixel before, not behind, the middle
_ERASED_AREA = (0.02, 0.4)
_ERASED_RATIO = (0.3, 1 / 0.3)


def resized_crop_boxes(
    heights: NDArray[np.int64], widths: NDArray[np.int64], numbers: Floats, scale: tuple[float, float]
) -> Boxes:
    """Boxes as torchvision's RandomResizedCrop draws them (Szegedy et al. 2015, section 6).

    The area is a uniform share in `scale` of the image's, the ratio of width to height log-uniform in [3/4,
    4/3]; the first of ten tries that fits counts, else the largest central box of an allowed ratio. numbers:
    (N, 22) in [0, 1): ten areas, ten ratios, and the position down and across.
    """
    area = (scale[0] + numbers[:, :TRIES] * (scale[1] - scale[0])) * (heights * widths)[:, None]
    low, high = np.log(_RATIO)
    ratio = np.exp(low + numbers[:, TRIES : 2 * TRIES] * (high - low))
    tried_widths, tried_heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    box_heights, box_widths, found = _first_that_fits(tried_heights, tried_widths, heights, widths)
    box_heights = np.where(found, box_heights, np.minimum(heights, np.rint(widths / _RATIO[0])))
    box_widths = np.where(found, box_widths, np.minimum(widths, np.rint(heights * _RATIO[1])))
    position = np.where(found[:, None], numbers[:, 2 * TRIES :], _MIDDLE)
    return _place(heights, widths, box_heights, box_widths, position)


def shorter_side_boxes(
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    numbers: Floats,
    size: int,
    sides: tuple[int, int],
) -> Boxes:
    """Boxes of a `size` crop somewhere in the image resized to a shorter side drawn from `sides`.

    He et al. 2015, section 3.4 (from VGG). Drawn in source pixels, so that one resampling does both; both
    draws are uniform. numbers: (N, 3) in [0, 1): the side, and the position down and across.
    """
    side = sides[0] + np.floor(numbers[:, 0] * (sides[1] - sides[0] + 1))
    shorter = np.minimum(heights, widths)
    box = np.clip(np.rint(size * shorter / side), 1, shorter)
    return _place(heights, widths, box, box, numbers[:, 1:])


def erasing_boxes(size: int, numbers: Floats) -> Boxes:
    """Boxes to erase in (size, size) views (Zhong et al. 2017, algorithm 1 and its parameters).

    The area is a uniform share in [0.02, 0.4], the ratio of height to width uniform in [0.3, 1 / 0.3]; the
    first of ten tries that is smaller than the view counts; where none is, the box is empty. numbers: (N, 22)
    in [0, 1): ten areas, ten ratios, and the position down and across.
    """
    low, high = _ERASED_AREA
    area = (low + numbers[:, :TRIES] * (high - low)) * size**2
    low, high = _ERASED_RATIO
    ratio = low + numbers[:, TRIES : 2 * TRIES] * (high - low)
    limit, whole = np.full(len(numbers), size - 1), np.full(len(numbers), size)
    tried_heights, tried_widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    heights, widths, found = _first_that_fits(tried_heights, tried_widths, limit, limit)
    return _place(whole, whole, heights * found, widths * found, numbers[:, 2 * TRIES :])


def cut_box(size: int, kept: float, centre: tuple[float, float]) -> tuple[int, int, int, int]:
    """CutMix's box (Yun et al. 2019): 1 - kept of a (size, size) view, before clipping at the border.

    centre: two uniform numbers in [0, 1), down and across. Returns top, left, height, width.
    """
    half = int(size * math.sqrt(1 - kept)) // 2
    middle = [int(at * size) for at in centre]
    start = [max(0, at - half) for at in middle]
    end = [min(size, at + half) for at in middle]
    return start[0], start[1], end[0] - start[0], end[1] - start[1]


def _first_that_fits(
    tried_heights: Floats, tried_widths: Floats, heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Of each row's tries the first between 1x1 and (height, width), and whether there is one."""
    fits: NDArray[np.bool_] = (tried_widths > 0) & (tried_widths <= widths[:, None])
    fits &= (tried_heights > 0) & (tried_heights <= heights[:, None])
    rows, first = np.arange(len(fits)), fits.argmax(axis=1)
    return tried_heights[rows, first], tried_widths[rows, first], fits[rows, first]


def _place(
    heights: NDArray[np.int64], widths: NDArray[np.int64], box_heights: Floats, box_widths: Floats, at: Floats
) -> Boxes:
    """at: (N, 2) in [0, 1), the position among the whole-pixel ones."""
    top = np.floor(at[:, 0] * (heights - box_heights + 1))
    left = np.floor(at[:, 1] * (widths - box_widths + 1))
    return np.stack([top, left, box_heights, box_widths], axis=1).astype(np.int64)


def resample(images: Tensor | Sequence[Tensor], boxes: Boxes, size: int, interpolation: str) -> Tensor:
    """Each image's box, resized with anti-aliasing: across, then down, in whole grey levels after either.

    images: (N, C, H, W) uint8, or N (C, H, W) on the CPU, of any sizes; returns (N, C, size, size) uint8, channels
    last.

    The bytes of PyTorch's `interpolate(antialias=True)` on a CPU. PIL's `crop` then `resize`, to within one grey
    level (bilinear) or two (the others), where it takes the same order: since version 13 it takes some tall images
    down first. That moves a bilinear value by no more than the one level, but others that left the range between the
    two passes, and were cut off there, by up to 30 beside the sharpest edges.
    """
    in_pytorch = interpolation in ("bilinear", "bicubic")
    if isinstance(images, Tensor) and not (in_pytorch and images.device.type == "cpu" and len(images)):
        return _resample_together(images, boxes, size, interpolation)
    resized = []
    for number, (image, (top, left, height, width)) in enumerate(zip(images, boxes.tolist(), strict=True)):
        # From other layouts PyTorch makes a contiguous result, more slowly, or an assertion of its own fails.
        single = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        if in_pytorch:
            box = single[..., top : top + height, left : left + width]
            resized.append(F.interpolate(box, (size, size), mode=interpolation, antialias=True))
        else:
            resized.append(_resample_together(single, boxes[number : number + 1], size, interpolation))
    return torch.cat(resized)


def _resample_together(images: Tensor, boxes: Boxes, size: int, interpolation: str) -> Tensor:
    top, left, height, width = boxes.T
    columns = images.permute(0, 3, 2, 1)
    rows = _resize_first(columns, *_taps(left, width, size, interpolation)).transpose(1, 2)
    return _resize_first(rows, *_taps(top, height, size, interpolation)).permute(0, 3, 1, 2)


def _resize_first(
    images: Tensor, positions: NDArray[np.int64], weights: NDArray[np.int32], shifts: NDArray[np.int32]
) -> Tensor:
    """Weighted sums of slices of the first axis behind N: (N, L, A, C) uint8 to (N, S, A, C) uint8."""
    count, length, other, channels = images.shape
    slices = images.reshape(count * length, other * channels)
    at = upload(positions + length * np.arange(count)[:, None, None], images.device)
    weight = upload(weights, images.device)
    shift = upload(shifts, images.device)[:, None, None]
    total = (1 << (shift - 1)).repeat(1, positions.shape[1], slices.shape[1])  # halves are rounded up
    for tap in range(positions.shape[2]):
        picked = slices.index_select(0, at[:, :, tap].flatten()).view(total.shape)
        total += picked * weight[:, :, tap, None]
    return (total >> shift).clamp_(0, 255).to(torch.uint8).view(count, positions.shape[1], other, channels)


def _taps(
    start: NDArray[np.int64], length: NDArray[np.int64], size: int, interpolation: str
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Which source positions make each of `size` outputs, and their weights, both (N, size, K), times 2**shifts, (N,).

    As in PyTorch, to the order of the operations. All samples' K is that of the widest: trailing weights are zero.
    """
    kernel, radius = _KERNELS[interpolation]
    scale = (length / size)[:, None]
    stretch = np.maximum(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.clip(np.floor(centre - radius * stretch + 0.5), 0, None)
    end = np.minimum(np.floor(centre + radius * stretch + 0.5), length[:, None])
    positions = first[..., None] + np.arange(int((end - first).max(initial=1)))
    weights = kernel((positions - centre[..., None] + 0.5) * (1 / stretch[..., None])) * (positions < end[..., None])
    weights /= weights.cumsum(axis=-1)[..., -1:]
    positions = np.minimum(positions, length[:, None, None] - 1) + start[:, None, None]
    return positions.astype(np.int64), *_in_integers(weights)


def _in_integers(weights: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(N, S, K) weights times 2**shifts, rounded, with the most bits, up to 22, that keep a sample's largest in 16."""
    largest = weights.max(axis=(1, 2), initial=0.0)[:, None]
    shifts = (np.floor(largest * 2.0 ** np.arange(1, 23) + 0.5) < 2**15).sum(axis=1, dtype=np.int32)
    scaled = weights * 2.0 ** shifts[:, None, None]
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32), shifts


def _triangle(x: Floats) -> Floats:
    return np.clip(1 - np.abs(x), 0, None)


def _cubic(x: Floats) -> Floats:
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _lanczos(x: Floats) -> Floats:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_KERNELS: dict[str, tuple[Callable[[Floats], Floats], int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
    "lanczos": (_lanczos, 3),
}
