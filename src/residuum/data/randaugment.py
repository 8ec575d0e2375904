"""RandAugment on batches: the samples that drew the same operation and sign are transformed together."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from residuum.hardware import upload

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
SIGNED = frozenset(OPERATIONS[1:10])
MAX_MAGNITUDE = 30
NUMBERS_PER_OPERATION = 2


def randaugment(images: Tensor, numbers: NDArray[np.float64], number_of_operations: int, magnitude: int) -> Tensor:
    """`number_of_operations` of the 14, drawn for each sample with replacement, all at one magnitude.

    images: (N, C, H, W) uint8; numbers: (N, 2 * number_of_operations) in [0, 1), which operation and whether
    it is reversed; magnitude: 0 to 30. The operations, their ranges, nearest-neighbour resampling and black
    borders are torchvision's. Cubuk et al. 2020, "RandAugment", section 3.
    """
    images = images.clone()
    for drawn in np.split(numbers, number_of_operations, axis=1):
        operation = (drawn[:, 0] * len(OPERATIONS)).astype(np.int64)
        sign = np.where(drawn[:, 1] < 0.5, -1, 1)
        for name, samples, direction in _groups(operation, sign):
            at = upload(samples, images.device)
            images[at] = apply_operation(images[at], name, direction, magnitude)
    return images


def _groups(operation: NDArray[np.int64], sign: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64], int]]:
    groups = []
    for number, name in enumerate(OPERATIONS):
        for direction in (-1, 1) if name in SIGNED else (1,):
            chosen = (operation == number) & ((sign == direction) | (name not in SIGNED))
            if chosen.any() and name != "Identity":
                groups.append((name, np.flatnonzero(chosen), direction))
    return groups


def apply_operation(images: Tensor, name: str, sign: int, magnitude: int) -> Tensor:
    """One operation of OPERATIONS on (N, C, H, W) uint8 images. sign: 1 or -1, for those in SIGNED."""
    from torchvision.transforms.v2 import (
        functional as F,
    )  # takes longer to import than a small data set to load

    height, width = images.shape[-2:]
    lean = math.degrees(math.atan(sign * _strength(0.3, magnitude)))
    factor = 1 + sign * _strength(0.9, magnitude)
    match name:
        case "Identity":
            return images
        case "ShearX":
            return _affine(images, shear=[lean, 0.0], center=[0.0, 0.0])
        case "ShearY":
            return _affine(images, shear=[0.0, lean], center=[0.0, 0.0])
        case "TranslateX":
            return _affine(images, translate=[int(sign * _strength(150 / 331 * width, magnitude)), 0])
        case "TranslateY":
            return _affine(images, translate=[0, int(sign * _strength(150 / 331 * height, magnitude))])
        case "Rotate":
            return F.rotate(images, angle=sign * _strength(30.0, magnitude))
        case "Brightness":
            return F.adjust_brightness(images, factor)
        case "Color":
            return F.adjust_saturation(images, factor)
        case "Contrast":
            return F.adjust_contrast(images, factor)
        case "Sharpness":
            return F.adjust_sharpness(images, factor)
        case "Posterize":
            return F.posterize(images, bits=8 - round(4 * magnitude / MAX_MAGNITUDE))
        case "Solarize":
            return F.solarize(images, threshold=255 * (1 - magnitude / MAX_MAGNITUDE))
        case "AutoContrast":
            return F.autocontrast(images)
        case "Equalize":
            return F.equalize(images)
    raise AssertionError(name)


def _strength(largest: float, magnitude: int) -> float:
    """The share of `largest` that a magnitude stands for, rounded to float32 exactly as torchvision does."""
    return float(torch.linspace(0.0, largest, MAX_MAGNITUDE + 1)[magnitude])


def _affine(images: Tensor, **changes: Any) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    still: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return F.affine(images, **still | changes)
