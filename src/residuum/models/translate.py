"""Foreign weights: from other layouts to our names, and the refusal of weights made for another network."""

import re
from collections.abc import Mapping

from torch import Tensor

from residuum.errors import UserError
from residuum.models.catalogue import CATALOGUE
from residuum.models.doors import DOORS

StateDict = dict[str, Tensor]

OUR_NAMES = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50_v1_5",
    "resnet101": "resnet101_v1_5",
    "resnet152": "resnet152_v1_5",
    "resnetv2_50": "preact_resnet50",
    "resnetv2_101": "preact_resnet101",
    "resnetv2_152": "preact_resnet152",
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x4d": "resnext101_32x4d",
    "resnext101_32x8d": "resnext101_32x8d",
    "resnext101_64x4d": "resnext101_64x4d",
    "wide_resnet50_2": "wide_resnet50_2",
    "wide_resnet101_2": "wide_resnet101_2",
}
"""torchvision's and timm's name of a network -> ours, where it is the same network."""

_TORCHVISION_FILE = re.compile(r"(\w+)-[0-9a-f]{8}\.pth")
_WRAPPERS = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile

_CIFAR_RENAMING = ((r"^linear\.", "fc."), (r"\.shortcut\.", ".downsample."))
_TIMM_PREACT_RENAMING = (
    (r"^stem\.conv\.", "conv1."),
    (r"^norm\.", "bn_last."),
    (r"^head\.fc\.", "fc."),
    (r"\.norm(\d)\.", r".bn\1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
)


def translate(state_dict: Mapping[str, Tensor], name: str) -> StateDict:
    """The weights under the names of our network `name`; what is in no known layout is returned as it is.

    Known are torchvision's and timm's ResNet names (ours), timm's `resnetv2_*`, and the CIFAR layout with
    `linear` for the last layer and `shortcut` for projections; the prefixes of DataParallel and torch.compile
    are taken off. Raises UserError for weights in the layout of a network that ours is not.
    """
    state = _unwrapped(state_dict)
    if "/" in name:
        return state
    if "stem.conv.weight" in state:
        return _from_timm_preact(state, name)
    return {_renamed(key, _CIFAR_RENAMING): value for key, value in state.items()}


def our_name_for(origin: str) -> str | None:
    """What a network is called here; None if `origin` does not tell.

    origin: one of our names, `torchvision/NAME`, `timm/NAME` with or without a weights tag, or the name of a
    file that torchvision has published (`resnet50-0676ba61.pth`). A network that only the library has keeps
    its name.
    """
    if origin in CATALOGUE:
        return origin
    if match := _TORCHVISION_FILE.fullmatch(origin):
        origin = f"torchvision/{match[1]}"
    door, _, inner = origin.partition("/")
    if door not in DOORS:
        return None
    return OUR_NAMES.get(inner.partition(".")[0], origin.partition(".")[0])


def check_origin(name: str, origin: str) -> None:
    """Raise UserError if `origin` (see `our_name_for`) is of another network than `name`.

    The shapes alone do not tell: torchvision's and timm's resnet50 ("v1.5") fits into He et al.'s resnet50
    without an error and gives wrong answers.
    """
    right = our_name_for(origin)
    if right is None or right == (our_name_for(name) or name):
        return
    reason = ", whose stride sits in the 3x3 convolution" if right == f"{name}_v1_5" else ""
    raise UserError(f"the weights {origin} were made for {right}{reason}, not for {name}; take the model {right}")


def _unwrapped(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Without the wrappers' prefixes, of which either may be the outer one."""
    state = dict(state_dict)
    for prefix in (*_WRAPPERS, *_WRAPPERS):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _renamed(key: str, renaming: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renaming:
        key = re.sub(pattern, replacement, key)
    return key


def _from_timm_preact(state: StateDict, name: str) -> StateDict:
    """timm's ResNetV2, whose classifier is a 1x1 convolution.

    Its basic-block nets are refused: their first unit carries the stem's output past the first activation,
    where He et al. 2016 (appendix) activate before the split; the names and shapes are the same, the networks
    are not.
    """
    if name in ("preact_resnet18", "preact_resnet34"):
        theirs = name.replace("preact_resnet", "timm/resnetv2_")
        raise UserError(f"{theirs} splits before its first activation, {name} after it; take the model {theirs}")
    translated = {}
    for key, value in state.items():
        key = re.sub(r"^stages\.(\d{1,3})\.blocks\.", lambda match: f"layer{int(match[1]) + 1}.", key)
        translated[_renamed(key, _TIMM_PREACT_RENAMING)] = value
    if "fc.weight" in translated and translated["fc.weight"].dim() == 4:
        translated["fc.weight"] = translated["fc.weight"].flatten(1)
    return translated
