"""From a decoded image to the network's input, alike wherever a model is used, with PyTorch or without."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from residuum.data.decoding import MAX_PIXELS
from residuum.errors import UserError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Per-channel mean of ImageNet's training images in [0, 1], as torchvision and timm use it."""
IMAGENET_STD = (0.229, 0.224, 0.225)

LONGEST = 64
"""Of an image's longer side, how much is resized at most, in shorter sides: a strip would take all the memory."""
LARGEST_SIDE = 4096
"""Pixels of the resized image's shorter side, at most."""

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What a network's input is: its geometry (`view`) and its normalisation (`normalise`).

    channels: 1 or 3; size: height and width in pixels; crop_pct: share of the resized shorter side that the
    centre crop keeps, in (0, 1]; mean, std: one number a channel for images in [0, 1]; mean_image: float32
    (channels, size, size), subtracted instead of `mean` where there is one (He et al. 2015, per-pixel mean).
    Raises UserError for values outside these.
    """

    channels: int
    size: int
    crop_pct: float = 1.0
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    mean_image: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(f"{self.channels} channels; images have 1 (grey) or 3 (colour)")
        if not 1 <= self.size <= LARGEST_SIDE:
            raise UserError(f"image size {self.size}; it is a number of pixels, at least 1, at most {LARGEST_SIDE}")
        if not 0 < self.crop_pct <= 1:
            raise UserError(f"crop_pct {self.crop_pct}; it is a share of the shorter side, above 0 and at most 1")
        if self.size > LARGEST_SIDE * self.crop_pct:
            raise UserError(
                f"image size {self.size} at crop_pct {self.crop_pct}; together they resize to more than the "
                f"{LARGEST_SIDE} pixels allowed"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, INTERPOLATIONS)
        if not len(self.mean) == len(self.std) == self.channels:
            raise UserError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations; "
                f"give {self.channels} of each, one a channel"
            )
        if not all(abs(mean) <= 1e6 for mean in self.mean) or not all(1e-6 <= std <= 1e6 for std in self.std):
            raise UserError(f"mean {self.mean}, std {self.std}; for images in [0, 1] both are near 1, and no std is 0")
        shape = (self.channels, self.size, self.size)
        if self.mean_image is not None and self.mean_image.shape != shape:
            raise UserError(f"a mean image of shape {self.mean_image.shape}; this preprocessing needs {shape}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Preprocessing) or self.to_config() != other.to_config():
            return False
        if self.mean_image is None or other.mean_image is None:
            return self.mean_image is other.mean_image
        return np.array_equal(self.mean_image, other.mean_image)

    def __hash__(self) -> int:
        return hash((self.channels, self.size, self.crop_pct, self.interpolation, self.mean, self.std))

    @property
    def resized_side(self) -> int:
        """What the shorter side becomes before the crop: timm's floor(size / crop_pct).

        The small addend keeps a crop_pct that was itself computed as size / side from falling one pixel
        short.
        """
        return math.floor(self.size / self.crop_pct + 1e-6)

    def view(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The (size, size, channels) centre of an (H, W, channels) image resized to `resized_side`.

        Bit for bit torchvision's Resize and CenterCrop on a PIL image.
        """
        image = self.resized(image, self.resized_side)
        height, width = image.shape[:2]
        top, left = round((height - self.size) / 2.0), round((width - self.size) / 2.0)
        return image[top : top + self.size, left : left + self.size].copy()  # else all of the image would be kept

    def resized(self, image: NDArray[np.uint8], side: int, longest: int = LONGEST) -> NDArray[np.uint8]:
        """An (H, W, channels) image with its shorter side made `side` pixels, in its own proportions.

        Bit for bit torchvision's Resize on a PIL image. A larger image is reduced with anti-aliasing, a smaller one is
        enlarged. Of a strip whose longer side is more than `longest` times the shorter one only the middle, of that
        length, is taken.
        """
        height, width = image.shape[:2]
        most = min(longest, max(1, MAX_PIXELS // side**2))
        shorter, longer = min(height, width), min(max(height, width), most * min(height, width))
        if shorter == side:
            return _middle(image, longer)
        other = int(side * longer / shorter)
        new = (side, other) if width <= height else (other, side)
        return _resize(_middle(image, longer), new, INTERPOLATIONS[self.interpolation])

    def normalise(self, images: "Tensor") -> "Tensor":
        """(N, C, H, W) uint8, or float32 in [0, 1], to float32, channels last: less the mean, over the deviation.

        Views of another size than the mean image's are less `mean`.
        """
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)  # long ones are soon worked through
        mean, std = _constants(self, (height, width), images.device)
        unit = rows if images.is_floating_point() else rows.float().div_(255)
        centred = unit - mean
        normalised = centred if std is None else centred.div_(std)
        return normalised.view(count, height, width, channels).permute(0, 3, 1, 2)

    def normalise_views(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, size, size, C) as `view` makes them to float32 (N, C, size, size), bit for bit as by `normalise`."""
        if self.mean_image is None:
            planes = [table[views[..., channel]] for channel, table in enumerate(_tables(self))]
            return np.stack(planes, axis=1)
        unit = views.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        return (unit - self.mean_image) / np.array(self.std, np.float32)[:, None, None]

    def to_config(self) -> dict[str, Any]:
        """A dict for JSON in timm's keys. A mean image is only announced (`"mean_image": True`), not held."""
        config: dict[str, Any] = {
            "input_size": [self.channels, self.size, self.size],
            "crop_pct": self.crop_pct,
            "crop_mode": "center",
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        return config if self.mean_image is None else config | {"mean_image": True}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], mean_image: NDArray[np.float32] | None = None) -> Self:
        """The inverse of `to_config`; also reads timm's `pretrained_cfg`, whose further keys are ignored.

        Raises UserError for a geometry we would not reproduce, and where an announced mean image is not
        given.
        """
        channels, height, width = _numbers(config, "input_size", whole=True)
        if height != width:
            raise UserError(f"input size {height}x{width}; only square inputs are supported")
        if config.get("crop_mode", "center") != "center":
            raise UserError(f"crop mode {_shown(config['crop_mode'])}; only 'center' is supported")
        crop_pct = config.get("crop_pct", 1.0)
        if not _is_number(crop_pct):
            raise UserError(f"crop_pct {_shown(crop_pct)}; it is a number above 0 and at most 1")
        interpolation = config.get("interpolation", "bilinear")
        if interpolation not in [*INTERPOLATIONS]:
            raise UserError(f"interpolation {_shown(interpolation)}; allowed: {', '.join(INTERPOLATIONS)}")
        if config.get("mean_image", False) != (mean_image is not None):
            raise UserError("the configuration and the files disagree on a mean image; save the model again")
        return cls(
            channels=channels,
            size=height,
            crop_pct=crop_pct,
            interpolation=interpolation,
            mean=_numbers(config, "mean"),
            std=_numbers(config, "std"),
            mean_image=mean_image,
        )


def _numbers(config: Mapping[str, Any], key: str, whole: bool = False) -> tuple[Any, ...]:
    """The list of numbers under `key`: no text, no truth value, none that is not finite."""
    values = config[key]
    if not isinstance(values, (list, tuple)) or not all(_is_number(value, whole) for value in values):
        raise UserError(f"{key} is {_shown(values)}; it is a list of {'whole' if whole else 'finite'} numbers")
    return tuple(values)


def _is_number(value: object, whole: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (whole and isinstance(value, float)):
        return False
    return abs(value) < 2**53


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _middle(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The middle `longest` pixels of either side, where it has more."""
    height, width = image.shape[:2]
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return image[top : top + longest, left : left + longest]


def _resize(image: NDArray[np.uint8], size: tuple[int, int], resample: Image.Resampling) -> NDArray[np.uint8]:
    grey = image.shape[2] == 1
    resized = np.asarray(Image.fromarray(image[:, :, 0] if grey else image).resize(size, resample))
    return resized[:, :, None] if grey else resized


@lru_cache(maxsize=16)
def _tables(preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(C, 256): what each value of a channel becomes."""
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (preprocessing.mean, preprocessing.std))
    return (unit - mean) / std


@lru_cache(maxsize=16)
def _constants(
    preprocessing: Preprocessing, shape: tuple[int, int], device: "torch.device"
) -> "tuple[Tensor, Tensor | None]":
    """Mean and standard deviation as rows (W * C,), a mean image as (H, W * C); None for a deviation of one."""
    import torch

    image, width = preprocessing.mean_image, shape[1]
    mean = torch.tensor(preprocessing.mean).repeat(width)
    if image is not None and image.shape[1:] == shape:
        mean = torch.from_numpy(image).permute(1, 2, 0).flatten(1)
    std = None if set(preprocessing.std) == {1.0} else torch.tensor(preprocessing.std).repeat(width).to(device)
    return mean.to(device), std
