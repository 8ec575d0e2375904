"""Where in the image a network finds a class: class activation maps (CAM), and Grad-CAM where CAM does not apply."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from residuum.errors import UserError
from residuum.state_dicts import head

_ROUNDING = 1e-4  # of the sum of the terms' sizes: a product of thousands of terms in float32, or on a GPU in TF32
_IMAGES_AT_ONCE = 16  # whose every activation is kept for the gradient


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """maps: (N, h, w) or (N, T, h, w) float32 on the CPU, of the resolution of the network's last spatial features.

    CAM: a position's share in the logit: their mean is the logit. Grad-CAM: only signs and ratios mean anything;
    where both exist it is the same, less the bias, divided by h * w.
    """

    maps: Tensor
    method: Literal["CAM", "Grad-CAM"]


def activation_maps(network: nn.Module, images: Tensor, classes: Tensor) -> ActivationMaps:
    """What in each image speaks for a class (positive) and against it (negative), position by position.

    images: (N, C, S, S) float32, normalised, on any device; classes: (N,) int64, the class each image's map is
    for, or (N, T), several of each image. The network computes where it is, in evaluation mode, and is left as it was.

    CAM where the logits are a linear layer of the last spatial features averaged over all positions: of class c
    at a position w_c . f + b_c (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization",
    section 2, who leave out b). Whether they are is not asked of the architecture but measured: the average of
    the maps found must give the network's own logits, of all classes. Otherwise Grad-CAM on the same features,
    before its ReLU: sum_k a_k f_k with a_k the mean over the positions of d logit / d f_k (Selvaraju et al. 2017,
    "Grad-CAM", equations 1 and 2).
    Raises UserError for a network without spatial features before its scores, such as a vision transformer, and
    for a class that the network does not have.
    """
    _, layer = head(network)
    # Within a caller's inference mode no gradient could be had, nor of what comes from there, unless copied.
    with _evaluating(network), torch.inference_mode(False):
        images, classes = (tensor.to(layer.weight.device, copy=True) for tensor in (images, classes))
        with torch.no_grad(), _Watch(len(images)) as watch:
            logits = network(images)
        _require_classes(classes, logits.shape[1])
        if watch.last is None or watch.tokens_since:
            raise _without_positions(network, images.shape[-1], watch.tokens_since)
        maps = _cam(_channels_first(watch.last), layer, logits, classes)
        if maps is not None:
            return ActivationMaps(maps.cpu(), "CAM")
        parts = zip(torch.split(images, _IMAGES_AT_ONCE), torch.split(classes, _IMAGES_AT_ONCE), strict=True)
        return ActivationMaps(torch.cat([_grad_cam(network, *part) for part in parts]).cpu(), "Grad-CAM")


def shown(maps: Tensor, side: int) -> Tensor:
    """Maps (N, h, w) as (N, side, side) float32 in [0, 1]: what speaks for the class, as a share of each map's maximum.

    Enlarged bilinearly. A map that is nowhere positive, and values that are no numbers, become 0.
    """
    positive = maps.float().nan_to_num(0.0, 0.0, 0.0).clamp(min=0.0)
    largest = positive.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    shares = (positive / largest)[:, None]
    return F.interpolate(shares, size=(side, side), mode="bilinear", align_corners=False)[:, 0]


class _Watch(TorchFunctionMode):
    """Sees the result of every operation of a forward pass, also of those that are no module, such as F.relu.

    last: the last features by position, (N, C, h, w) or (N, h, w, C) with h = w > 1; tokens_since: whether
    features as a sequence (N, T, D) came after them, as in a transformer.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.last: Tensor | None = None
        self.tokens_since = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape[:1] == (self.images,):
            if result.ndim == 3:
                self.tokens_since = True
            elif result.ndim == 4 and (_is_map(*result.shape[2:]) or _is_map(*result.shape[1:3])):
                self.last, self.tokens_since = result, False
        return result


def _is_map(height: int, width: int) -> bool:
    return height == width > 1  # as the images are square


def _channels_first(features: Tensor) -> Tensor:
    return features if _is_map(*features.shape[2:]) else features.permute(0, 3, 1, 2)


def _cam(features: Tensor, layer: nn.Linear | nn.Conv2d, logits: Tensor, classes: Tensor) -> Tensor | None:
    """Zhou et al.'s maps, or None where their mean over the positions is not the logits: the sceptic's test."""
    weight = layer.weight.detach().flatten(1)  # some heads are 1x1 convolutions
    if weight.shape != (logits.shape[1], features.shape[1]):
        return None
    bias = logits.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    expected = F.linear(features.mean(dim=(2, 3)), weight, bias)
    terms = F.linear(features.abs().mean(dim=(2, 3)), weight.abs(), bias.abs())
    if not ((expected - logits).abs() <= _ROUNDING * terms).all():
        return None
    return torch.einsum("nchw,n...c->n...hw", features, weight[classes]) + bias[classes][..., None, None]


def _grad_cam(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    if classes.ndim == 2:
        return torch.stack([_grad_cam(network, images, column) for column in classes.T], dim=1)
    images = images.detach().requires_grad_()  # all weights may be frozen
    with torch.enable_grad(), _Watch(len(images)) as watch:
        scores = network(images).gather(1, classes[:, None]).sum()
    assert watch.last is not None
    (slopes,) = torch.autograd.grad(scores, watch.last)
    weights = _channels_first(slopes).mean(dim=(2, 3))
    return torch.einsum("nchw,nc->nhw", _channels_first(watch.last.detach()), weights)


def _without_positions(network: nn.Module, size: int, is_sequence: bool) -> UserError:
    kept = "one sequence" if is_sequence else f"a single position for images of {size} pixels"
    return UserError(
        f"{type(network).__name__} scores features of {kept}, which have no map; activation maps need a "
        "convolutional network and images large enough for it"
    )


def _require_classes(classes: Tensor, known: int) -> None:
    odd = classes[(classes < 0) | (classes >= known)]
    if len(odd):
        raise UserError(f"a map for class {int(odd[0])} of a network of {known}; name classes from 0 to {known - 1}")


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode for a while; each module's own mode comes back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
