"""Augmentations: pure functions of a batch and of random numbers, and the order they are applied in."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from residuum.data.crops import ERASING_NUMBERS, Boxes, Floats, cut_box, erasing_boxes
from residuum.data.preprocessing import Preprocessing
from residuum.data.randaugment import MAX_MAGNITUDE, NUMBERS_PER_OPERATION, randaugment
from residuum.data.statistics import ChannelStatistics
from residuum.errors import UserError
from residuum.hardware import upload
from residuum.randomness import derived_seed, uniform

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, to torchvision's digits


@dataclass(frozen=True)
class Augmentation:
    """What training does to its images at random; nothing by default. Raises UserError for a wrong value.

    pad_and_crop: zeros added on each side, then a crop of the old size (He et al. 2015, section 4.2: 4).
    flip: mirror half of the images. random_resized_crop: the range of the crop's share of the area.
    shorter_side: the range of the shorter side before a crop of the view's size (section 3.4: 256, 480).
    color_jitter: brightness, contrast and saturation change by a factor in [1 - strength, 1 + strength].
    lighting: standard deviation of the shift along the colours' principal axes (AlexNet: 0.1).
    randaugment: operations a sample and their magnitude, 0 to 30. random_erasing: its probability.
    mixup, cutmix: alpha of Beta(alpha, alpha); where both are set, a batch gets either, half and half.
    """

    pad_and_crop: int = 0
    flip: bool = False
    random_resized_crop: tuple[float, float] | None = None
    shorter_side: tuple[int, int] | None = None
    color_jitter: float = 0.0
    lighting: float = 0.0
    randaugment: tuple[int, int] | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("pad_and_crop", "color_jitter", "lighting", "random_erasing", "mixup", "cutmix"):
            self._allow(name, 0 <= getattr(self, name) < math.inf, "0 (off) or more, and finite")
        self._allow("random_erasing", self.random_erasing <= 1, "a probability, 0 to 1")
        if self.random_resized_crop is not None:
            low, high = self.random_resized_crop
            self._allow("random_resized_crop", 0 < low <= high <= 1, "two shares in (0, 1], the smaller first")
        if self.shorter_side is not None:
            low, high = self.shorter_side
            self._allow("shorter_side", 1 <= low <= high, "two sizes in pixels, the smaller first")
        if self.randaugment is not None:
            count, magnitude = self.randaugment
            right = count >= 1 and 0 <= magnitude <= MAX_MAGNITUDE
            self._allow("randaugment", right, f"1 operation or more, and a magnitude of 0 to {MAX_MAGNITUDE}")
        if self.random_resized_crop is not None and self.shorter_side is not None:
            raise UserError("random_resized_crop and shorter_side are both set; both make the view: keep one")

    def _allow(self, name: str, right: bool, allowed: str) -> None:
        if not right:
            raise UserError(f"{name} {getattr(self, name)}; allowed: {allowed}")

    @property
    def crops_at_random(self) -> bool:
        """Whether the view of an image changes from epoch to epoch."""
        return self.random_resized_crop is not None or self.shorter_side is not None

    @property
    def mixes_labels(self) -> bool:
        """Whether labels become (N, K) shares."""
        return self.mixup > 0 or self.cutmix > 0


def flip(images: Tensor, numbers: Floats) -> Tensor:
    """Mirror the samples whose number is below 1/2. images: (N, C, H, W); numbers: (N,) in [0, 1)."""
    mirrored = upload(np.flatnonzero(numbers < 0.5), images.device)
    flipped = images.clone()
    flipped[mirrored] = images[mirrored].flip(-1)
    return flipped


def pad_and_crop(images: Tensor, numbers: Floats, padding: int) -> Tensor:
    """Each sample's own crop, of the old size, out of the image with `padding` zeros on every side.

    images: (N, C, H, W); numbers: (N, 2) in [0, 1), the crop's position down and across.
    """
    count, channels, height, width = images.shape
    offset = upload((numbers * (2 * padding + 1)).astype(np.int64), images.device)
    rows = offset[:, 0, None] + torch.arange(height, device=images.device)
    columns = offset[:, 1, None] + torch.arange(width, device=images.device)
    first_row = torch.arange(count, device=images.device)[:, None] * (height + 2 * padding)
    pixel = ((first_row + rows)[:, :, None] * (width + 2 * padding) + columns[:, None, :]).flatten()
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4)).view(-1, channels)
    return padded.index_select(0, pixel).view(count, height, width, channels).permute(0, 3, 1, 2)


def color_jitter(images: Tensor, numbers: Floats, strength: float) -> Tensor:
    """Brightness, contrast and saturation, always in this order, each by its own factor.

    images: (N, 1 or 3, H, W) in [0, 1]; numbers: (N, 3) in [0, 1); the factors are uniform in
    [max(0, 1 - strength), 1 + strength] and mean what torchvision's ColorJitter means by them.
    """
    low, high = max(0.0, 1 - strength), 1 + strength
    factors = _column(low + numbers * (high - low), images)
    brighter = (images * factors[:, 0]).clamp_(0, 1)
    mean_grey = _grey(brighter).mean((1, 2, 3), keepdim=True)
    contrasted = _blend(brighter, mean_grey, factors[:, 1])
    return contrasted if images.shape[1] == 1 else _blend(contrasted, _grey(contrasted), factors[:, 2])


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = _GREY_WEIGHTS
    return images[:, :1] * red + images[:, 1:2] * green + images[:, 2:] * blue


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (images * share + other * (1 - share)).clamp_(0, 1)


def _column(numbers: Floats, images: Tensor) -> Tensor:
    """(N, M) numbers as float32 (N, M, 1, 1, 1) beside the images: `[:, m]` broadcasts over (N, C, H, W)."""
    return upload(numbers.astype(np.float32), images.device)[:, :, None, None, None]


def lighting(images: Tensor, numbers: Floats, strength: float, colours: ChannelStatistics) -> Tensor:
    """Add a random multiple of each principal colour axis to every pixel of an image.

    images: (N, C, H, W) in [0, 1], not clipped after; numbers: (N, 2 * C) in [0, 1), two for each normal
    deviate. The multiples are N(0, strength) times the eigenvalue of the colours' covariance in [0, 1] units.
    Krizhevsky et al. 2012, section 4.1.
    """
    channels = images.shape[1]
    multiples = strength * _normal(numbers[:, :channels], numbers[:, channels:]) * colours.eigenvalues
    return images + _column(multiples @ colours.eigenvectors.T, images)[:, :, 0]


def _normal(first: Floats, second: Floats) -> Floats:
    """Standard normal deviates from two uniform numbers in [0, 1) each (Box and Muller 1958)."""
    return np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)


def random_erasing(images: Tensor, boxes: Boxes) -> Tensor:
    """Zero each sample's box: on normalised images, the mean pixel. images: (N, C, S, S); boxes: (N, 4)."""
    at = np.arange(images.shape[-1])
    top, left, height, width = boxes.T[:, :, None]
    rows, columns = (at >= top) & (at < top + height), (at >= left) & (at < left + width)
    erased = upload(rows[:, None, :, None] & columns[:, None, None, :], images.device)
    return images.masked_fill(erased, 0.0)


def mixup(images: Tensor, labels: Tensor, share: float, partners: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """`share` of each sample and 1 - share of its partner, in images (N, C, H, W) and labels (N, K) alike.

    Zhang et al. 2018, "mixup: Beyond empirical risk minimization".
    """
    other = upload(partners, images.device)
    return (
        images * share + images[other] * (1 - share),
        labels * share + labels[other] * (1 - share),
    )


def cutmix(
    images: Tensor, labels: Tensor, box: tuple[int, int, int, int], partners: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Paste the box (top, left, height, width) from each sample's partner; labels (N, K) by exact area.

    Yun et al. 2019, "CutMix".
    """
    top, left, height, width = box
    other = upload(partners, images.device)
    mixed = images.clone()
    region = (..., slice(top, top + height), slice(left, left + width))
    mixed[region] = images[region][other]
    share = 1 - height * width / (images.shape[-2] * images.shape[-1])
    return mixed, labels * share + labels[other] * (1 - share)


@dataclass(frozen=True)
class Augmenter:
    """Views to training batches: RandAugment, colours, normalisation, flip, padded crop, erasing, mixing.

    The numbers behind an image depend on (seed, epoch, its index), those behind a mixture on (seed, epoch, batch).
    classes: K, needed where labels are mixed; colours: the training set's, needed for `lighting`.
    """

    augmentation: Augmentation
    preprocessing: Preprocessing
    seed: int
    classes: int
    colours: ChannelStatistics | None = None

    def each(self, images: Tensor, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        """All but the mixing: (N, C, S, S) uint8 to float32. What happens to an image follows from its index alone."""
        if self._flips_bytes:
            images = self._flip(images, epoch, indices)
        images = self.preprocessing.normalise(self._colour(images, epoch, indices))
        if self.augmentation.flip and not self._flips_bytes:
            images = self._flip(images, epoch, indices)
        return self._place(images, epoch, indices)

    def mix(self, images: Tensor, labels: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """The mixing of a whole batch, its number in the epoch `batch`; labels (N,) or (N, K) become (N, K) shares."""
        return self._mix(images, labels, epoch, batch) if self.augmentation.mixes_labels else (images, labels)

    @property
    def _flips_bytes(self) -> bool:
        """Whether images are mirrored before normalisation, a quarter of the memory, because the result is the same."""
        wanted = self.augmentation
        changes_colours = wanted.randaugment or wanted.color_jitter or wanted.lighting
        return wanted.flip and not changes_colours and self.preprocessing.mean_image is None

    def _flip(self, images: Tensor, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        return flip(images, self._numbers("flip", epoch, indices, 1)[:, 0])

    def _numbers(self, stream: str, epoch: int, indices: NDArray[np.int64], count: int) -> Floats:
        return uniform(self.seed, stream, epoch, indices, count)

    def _colour(self, images: Tensor, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        wanted = self.augmentation
        if wanted.randaugment:
            count, magnitude = wanted.randaugment
            numbers = self._numbers("randaugment", epoch, indices, NUMBERS_PER_OPERATION * count)
            images = randaugment(images, numbers, count, magnitude)
        if wanted.color_jitter or wanted.lighting:
            images = images.float().div_(255)
        if wanted.color_jitter:
            numbers = self._numbers("color_jitter", epoch, indices, 3)
            images = color_jitter(images, numbers, wanted.color_jitter)
        if wanted.lighting:
            assert self.colours is not None
            numbers = self._numbers("lighting", epoch, indices, 2 * images.shape[1])
            images = lighting(images, numbers, wanted.lighting, self.colours)
        return images

    def _place(self, images: Tensor, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        wanted = self.augmentation
        if wanted.pad_and_crop:
            numbers = self._numbers("pad_and_crop", epoch, indices, 2)
            images = pad_and_crop(images, numbers, wanted.pad_and_crop)
        if wanted.random_erasing:
            numbers = self._numbers("random_erasing", epoch, indices, 1 + ERASING_NUMBERS)
            boxes = erasing_boxes(images.shape[-1], numbers[:, 1:])
            boxes[numbers[:, 0] >= wanted.random_erasing] = 0
            images = random_erasing(images, boxes)
        return images

    def _mix(self, images: Tensor, labels: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        wanted = self.augmentation
        shares = F.one_hot(labels, self.classes).float() if labels.ndim == 1 else labels
        generator = np.random.default_rng(derived_seed(self.seed, "mixing", epoch << 32 | batch))
        down, across, choice = generator.random(3)
        cuts = choice < 0.5 if wanted.mixup and wanted.cutmix else wanted.cutmix > 0
        alpha = wanted.cutmix if cuts else wanted.mixup
        share, partners = generator.beta(alpha, alpha), generator.permutation(len(images))
        if cuts:
            return cutmix(images, shares, cut_box(images.shape[-1], share, (down, across)), partners)
        return mixup(images, shares, share, partners)
