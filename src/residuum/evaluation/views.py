"""What of an image a network is shown in a test, and how what it says of several views becomes one answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import log
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from residuum.data.preprocessing import LARGEST_SIDE, Preprocessing
from residuum.data.view_loader import Views
from residuum.errors import UserError
from residuum.hardware import upload

Kind = Literal["1-crop", "10-crop", "multi-scale"]
Average = Literal["probabilities", "logits"]
KINDS: tuple[Kind, ...] = ("1-crop", "10-crop", "multi-scale")
AVERAGES: tuple[Average, ...] = ("probabilities", "logits")

SCALES = (224, 256, 384, 480, 640)
"""Shorter sides for a network whose input is 224 pixels (He et al. 2015, section 3.4)."""
_INPUT_OF_SCALES = 224
_LONGEST = 8  # of a strip's longer side, in shorter sides: all of it would go through the network at once

Predict = Callable[[Tensor], Tensor]
"""Normalised images (N, C, H, W) float32 to logits (N, K)."""


@dataclass(frozen=True)
class Protocol:
    """How a test looks at an image.

    "1-crop": the centre, as in training's own evaluations; for small images that is the single view of He et al. 2015,
    section 4.2. "10-crop": the four corners and the centre of the resized image, all of it (torchvision's FiveCrop;
    Krizhevsky et al. 2012, section 4.1, cut its central square first), and their mirror images. "multi-scale": the
    whole image, its shorter side resized to each of `scales`, which without any are those of He et al. 2015, section
    3.4, in proportion to the network's input. mirrored: also each view's mirror image; ten crops have them anyway.
    average: of what, over the views (and the models of an ensemble).

    On a whole image the network is fully convolutional: its classifier, W f + b on the mean f of the features f_p over
    the P positions of the last feature map, is applied at every position and averaged, which is the same, since
    W (sum_p f_p / P) + b = sum_p (W f_p + b) / P. At the network's own input size that is the plain forward pass.

    Raises UserError for another kind, and for scales where they mean nothing or are out of range.
    """

    kind: Kind = "1-crop"
    scales: tuple[int, ...] = ()
    mirrored: bool = False
    average: Average = "probabilities"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"protocol {self.kind!r}; allowed: {', '.join(KINDS)}")
        if self.average not in AVERAGES:
            raise UserError(f"average {self.average!r}; allowed: {', '.join(AVERAGES)}")
        if self.scales and self.kind != "multi-scale":
            raise UserError(f"scales are for the protocol multi-scale, not for {self.kind}; leave them out")
        if not all(1 <= side <= LARGEST_SIDE for side in self.scales):
            scales = ", ".join(map(str, self.scales))
            raise UserError(f"scales {scales}; each is a number of pixels, 1 to {LARGEST_SIDE}")

    def name(self, preprocessing: Preprocessing) -> str:
        """What results are labelled with: "1-crop 32", "10-crop 224 of 256", "multi-scale 224,256, mirrored".

        Named are also another interpolation than bilinear, and logits averaged over views.
        """
        name = f"{self.kind} {','.join(map(str, self.sides(preprocessing)))}"
        if self.kind != "multi-scale" and preprocessing.resized_side != preprocessing.size:
            name += f" of {preprocessing.resized_side}"
        further = {
            preprocessing.interpolation: preprocessing.interpolation != "bilinear",
            "mirrored": self.mirrored and self.kind != "10-crop",
            "logits averaged": self.average == "logits" and self._has_several,
        }
        return ", ".join([name, *(word for word, is_so in further.items() if is_so)])

    @property
    def _has_several(self) -> bool:
        return self.mirrors or self.kind != "1-crop"

    @property
    def mirrors(self) -> bool:
        """Whether mirror images are looked at."""
        return self.mirrored or self.kind == "10-crop"

    def sides(self, preprocessing: Preprocessing) -> tuple[int, ...]:
        """Of the whole image's shorter side at each scale, or of the crops, in pixels."""
        if self.kind != "multi-scale":
            return (preprocessing.size,)
        return self.scales or tuple(round(side * preprocessing.size / _INPUT_OF_SCALES) for side in SCALES)

    def views(self, image: NDArray[np.uint8], preprocessing: Preprocessing) -> Views:
        """The views of an (H, W, C) image, (h, w, C) each; mirror images are made later, of whole batches."""
        if self.kind == "1-crop":
            return (preprocessing.view(image),)
        if self.kind == "10-crop":
            return _five_crops(preprocessing.resized(image, preprocessing.resized_side), preprocessing.size)
        return tuple(preprocessing.resized(image, side, _LONGEST) for side in self.sides(preprocessing))


@dataclass(frozen=True)
class Viewing:
    """Makes the views of a protocol for a model: equal for models that see the same, whatever they subtract from it.

    Raises UserError where ten crops of the resized image would all be the same.
    """

    geometry: Preprocessing
    protocol: Protocol

    def __post_init__(self) -> None:
        size, side = self.geometry.size, self.geometry.resized_side
        if self.protocol.kind == "10-crop" and side == size:
            raise UserError(
                f"the model resizes images to {side} pixels and sees {size}: five crops of a square would be one; "
                "use the protocol 1-crop, with mirror images if you like"
            )
        largest = max(self.protocol.sides(self.geometry))
        if largest > LARGEST_SIDE:
            raise UserError(f"scales up to {largest} pixels for an input of {size}; name them, up to {LARGEST_SIDE}")

    @property
    def channels(self) -> int:
        return self.geometry.channels

    def __call__(self, image: NDArray[np.uint8]) -> Views:
        return self.protocol.views(image, self.geometry)

    def bytes_of_image(self) -> int:
        """What the views of an image take that is half as long again as it is wide."""
        return sum(view.nbytes for view in self(np.zeros((200, 300, self.channels), np.uint8)))


def viewing(preprocessing: Preprocessing, protocol: Protocol) -> Viewing:
    """How a model with this preprocessing sees images under a protocol."""
    zero, one = ((value,) * preprocessing.channels for value in (0.0, 1.0))
    return Viewing(replace(preprocessing, mean=zero, std=one, mean_image=None), protocol)


def _five_crops(image: NDArray[np.uint8], size: int) -> Views:
    height, width = image.shape[:2]
    bottom, right = height - size, width - size
    middle = round(bottom / 2.0), round(right / 2.0)
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), middle)
    return tuple(image[top : top + size, left : left + size].copy() for top, left in places)


def predict_views(
    predict: Predict,
    preprocessing: Preprocessing,
    protocol: Protocol,
    *,
    device: torch.device,
    batch_size: int,
    multi_label: bool = False,
) -> Callable[[Sequence[Views]], Tensor]:
    """A function from the views of N images to one row of logits each, (N, K) on the device.

    Views of one size go through the network together: `batch_size` of them where they have the model's input size, of
    larger ones fewer in proportion to their area.
    """

    def scores_of(views: Sequence[_Placed]) -> list[Tensor]:
        images = upload(np.stack([placed.view for placed in views]), device).permute(0, 3, 1, 2)
        sides = (images, images.flip(3)) if protocol.mirrors else (images,)
        return [predict(preprocessing.normalise(side)) for side in sides]

    def predict_all(views: Sequence[Views]) -> Tensor:
        rows: dict[tuple[int, int, int], Tensor] = {}
        for together in _by_size(views, at_once=batch_size * preprocessing.size**2):
            for side, scores in enumerate(scores_of(together)):
                rows |= {(placed.number, side, placed.image): row for placed, row in zip(together, scores, strict=True)}
        ordered = torch.stack([rows[key] for key in sorted(rows)])
        return average_scores(ordered.view(-1, len(views), ordered.shape[1]), protocol.average, multi_label=multi_label)

    return predict_all


class _Placed(NamedTuple):
    """A view (h, w, C) uint8, which of its image's views it is, and which image's."""

    view: NDArray[np.uint8]
    number: int
    image: int


def _by_size(views: Sequence[Views], at_once: int) -> Iterator[list[_Placed]]:
    """All views, those of one size together, but no more than have `at_once` pixels, or one."""
    placed = [_Placed(view, number, image) for image, seen in enumerate(views) for number, view in enumerate(seen)]
    placed.sort(key=lambda one: one.view.shape)
    for (height, width, _), group in groupby(placed, key=lambda one: one.view.shape):
        same, most = list(group), max(1, at_once // (height * width))
        yield from (same[start : start + most] for start in range(0, len(same), most))


def average_scores(scores_VNK: Tensor, how: Average, *, multi_label: bool = False) -> Tensor:
    """One row of logits (N, K) from those of V views, or of V models, (V, N, K) float32.

    Averaged are the logits themselves, or the probabilities, whose logarithms (log-odds for several labels an image)
    are then the logits: their softmax (sigmoid) is that average. A single one is returned as it is.
    """
    if len(scores_VNK) == 1:
        return scores_VNK[0]
    if how == "logits":
        return scores_VNK.mean(dim=0)
    if multi_label:
        yes, no = (F.logsigmoid(sign * scores_VNK).logsumexp(dim=0) for sign in (1, -1))
        return yes - no
    return scores_VNK.log_softmax(dim=2).logsumexp(dim=0) - log(len(scores_VNK))
