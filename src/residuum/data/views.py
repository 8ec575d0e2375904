"""From decoded images of any size to one uint8 tensor: the centre view, or a random one for each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from residuum.data.augmentations import Augmentation
from residuum.data.crops import (
    RESIZED_CROP_NUMBERS,
    SHORTER_SIDE_NUMBERS,
    Boxes,
    resample,
    resized_crop_boxes,
    shorter_side_boxes,
)
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import Indices
from residuum.errors import UserError
from residuum.randomness import uniform

Decoded = Sequence[NDArray[np.uint8]]
"""Decoded images, each (H, W, C) uint8."""


class View(Protocol):
    """What is made of the images with these sample indices in this epoch: (N, C, H, W) uint8, channels last."""

    def __call__(self, images: Decoded, epoch: int, indices: Indices) -> Tensor: ...


class MixedSizesError(Exception):
    """Images of more than one size cannot be one tensor."""


@dataclass(frozen=True)
class WholeView:
    """The images as they are. Raises MixedSizesError where their sizes differ."""

    def __call__(self, images: Decoded, epoch: int, indices: Indices) -> Tensor:
        if len({image.shape for image in images}) > 1:
            raise MixedSizesError
        return _stack(images)


@dataclass(frozen=True)
class CentreView:
    """The view that evaluation sees."""

    preprocessing: Preprocessing

    def __call__(self, images: Decoded, epoch: int, indices: Indices) -> Tensor:
        return _stack([self.preprocessing.view(image) for image in images])


@dataclass(frozen=True)
class RandomView:
    """A crop whose place and size are drawn for each (seed, epoch, sample index).

    Raises UserError where a shorter side in the augmentation's range would be smaller than the crop.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation
    seed: int

    def __post_init__(self) -> None:
        assert self.augmentation.crops_at_random
        sides = self.augmentation.shorter_side
        if sides and sides[0] < self.preprocessing.size:
            size = self.preprocessing.size
            raise UserError(f"shorter_side starts at {sides[0]}, below the view's {size} pixels; start at {size}")

    def __call__(self, images: Decoded, epoch: int, indices: Indices) -> Tensor:
        boxes = self._boxes(
            np.array([image.shape[0] for image in images]),
            np.array([image.shape[1] for image in images]),
            epoch,
            indices,
        )
        return self._resample([torch.from_numpy(image).permute(2, 0, 1) for image in images], boxes)

    def of_batch(self, images: Tensor, epoch: int, indices: Indices) -> Tensor:
        """The same bytes from images of one size, (N, C, H, W) uint8, on their device."""
        count, _, height, width = images.shape
        boxes = self._boxes(np.full(count, height), np.full(count, width), epoch, indices)
        return self._resample(images, boxes)

    def _boxes(self, heights: Indices, widths: Indices, epoch: int, indices: Indices) -> Boxes:
        scale, sides = self.augmentation.random_resized_crop, self.augmentation.shorter_side
        count = RESIZED_CROP_NUMBERS if scale else SHORTER_SIDE_NUMBERS
        numbers = uniform(self.seed, "view", epoch, indices, count)
        if scale:
            return resized_crop_boxes(heights, widths, numbers, scale)
        assert sides
        return shorter_side_boxes(heights, widths, numbers, self.preprocessing.size, sides)

    def _resample(self, images: Tensor | Sequence[Tensor], boxes: Boxes) -> Tensor:
        return resample(images, boxes, self.preprocessing.size, self.preprocessing.interpolation)


def _stack(images: Decoded) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
