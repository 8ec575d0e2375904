"""The door to other people's networks: `torchvision/NAME` and `timm/NAME`, built without weights.

They are returned as their library defines them, without auxiliary heads, so that a forward pass gives logits
alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import nn

from residuum.errors import missing_extra, unknown_name

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def build_torchvision(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """torchvision's classification network `name`; other than 3 channels replace its first convolution."""
    from torchvision.models import get_model

    extra = {"aux_logits": False, "init_weights": True} if name in _WITH_AUXILIARY_HEADS else {}
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes, **extra)
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    return network


def build_timm(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """timm's network `name` (a weights tag, as in resnet50.a1_in1k, is accepted and ignored)."""
    network: nn.Module = _import_timm().create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_channels
    )
    return network


def torchvision_names() -> list[str]:
    """torchvision's classification networks (its detectors and segmenters are no classifiers)."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def timm_names() -> list[str]:
    """timm's networks."""
    names: list[str] = _import_timm().list_models()
    return names


def torchvision_input(name: str) -> tuple[int, int, int]:
    """The (C, H, W) a torchvision network was designed for. Raises UserError for an unknown name."""
    if name not in torchvision_names():
        raise unknown_name("torchvision network", name, torchvision_names(), "residuum models 'torchvision/*'")
    return (3, 299, 299) if name == "inception_v3" else (3, 224, 224)


def timm_input(name: str) -> tuple[int, int, int]:
    """The (C, H, W) of a timm network's weights, default or tagged. Raises UserError for an unknown name."""
    timm = _import_timm()
    network = name.split(".")[0]
    if not timm.is_model(network):
        raise unknown_name("timm network", name, timm_names(), "residuum models 'timm/*'")
    try:
        size = timm.get_pretrained_cfg(name).input_size
    except RuntimeError as error:
        raise unknown_name("timm network", name, [network, *timm.list_pretrained(f"{network}.*")]) from error
    return size[0], size[1], size[2]


def _import_timm() -> ModuleType:
    try:
        return import_module("timm")
    except ImportError as error:
        raise missing_extra("timm", "timm", "a timm network") from error


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Put a newly initialised convolution that takes `in_channels` in the first one's place."""
    path, old = next((path, m) for path, m in network.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, child = path.rpartition(".")
    geometry: dict[str, Any] = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding")}
    new = nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **geometry)
    setattr(network.get_submodule(parent), child, new)


@dataclass(frozen=True)
class Door:
    """A library: builder (name, *, num_classes, in_channels), its names, and a name's input (C, H, W)."""

    build: Callable[..., nn.Module]
    names: Callable[[], list[str]]
    input_size: Callable[[str], tuple[int, int, int]]


DOORS: dict[str, Door] = {
    "torchvision": Door(build_torchvision, torchvision_names, torchvision_input),
    "timm": Door(build_timm, timm_names, timm_input),
}
