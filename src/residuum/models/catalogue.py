"""The networks by name: one explicit dict, and a rule for the families that have a member for every n."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from residuum.errors import UserError, unknown_name
from residuum.models import (
    doors,
    he2015,
    he2016,
    he2016_units,
    lecun1998,
    page2019,
    xie2017,
    zagoruyko2016,
)
from residuum.models.initialisation import initialise_by
from residuum.models.normalisation import replace_normalisation
from residuum.models.shortcuts import SHORTCUTS, ShortcutBuilder
from residuum.models.trunk import ResNet
from residuum.models.units import ACTIVATIONS, Activation

Builder = Callable[..., nn.Module]

_LONGEST_NAME = 100
_LARGEST_NUMBER = 2 * 1202  # of layers or widening: twice the papers' deepest; more take seconds even without weights


@dataclass(frozen=True)
class Task:
    """What a paper trains its networks on: input (C, H, W) and number of classes."""

    input_size: tuple[int, int, int]
    classes: int


IMAGENET = Task((3, 224, 224), 1000)
CIFAR = Task((3, 32, 32), 10)
MNIST = Task((1, 32, 32), 10)


@dataclass(frozen=True)
class Entry:
    """A network: its builder, the paper (or library) that defines it, the task it was defined for.

    has_shortcuts: whether the shortcut's kind, zero_gamma and drop_path can be chosen; has_activation: whether the
    activation can.
    """

    build: Builder
    paper: str
    task: Task
    has_shortcuts: bool = True
    has_activation: bool = True


CATALOGUE: dict[str, Entry] = {
    "resnet18": Entry(he2015.resnet18, "He 2015", IMAGENET),
    "resnet34": Entry(he2015.resnet34, "He 2015", IMAGENET),
    "resnet50": Entry(he2015.resnet50, "He 2015", IMAGENET),
    "resnet101": Entry(he2015.resnet101, "He 2015", IMAGENET),
    "resnet152": Entry(he2015.resnet152, "He 2015", IMAGENET),
    "resnet50_v1_5": Entry(he2015.resnet50_v1_5, "He 2015, v1.5", IMAGENET),
    "resnet101_v1_5": Entry(he2015.resnet101_v1_5, "He 2015, v1.5", IMAGENET),
    "resnet152_v1_5": Entry(he2015.resnet152_v1_5, "He 2015, v1.5", IMAGENET),
    "plain18": Entry(he2015.plain18, "He 2015", IMAGENET, has_shortcuts=False),
    "plain34": Entry(he2015.plain34, "He 2015", IMAGENET, has_shortcuts=False),
    "resnet20": Entry(partial(he2015.cifar_resnet, 3), "He 2015", CIFAR),
    "resnet32": Entry(partial(he2015.cifar_resnet, 5), "He 2015", CIFAR),
    "resnet44": Entry(partial(he2015.cifar_resnet, 7), "He 2015", CIFAR),
    "resnet56": Entry(partial(he2015.cifar_resnet, 9), "He 2015", CIFAR),
    "resnet110": Entry(partial(he2015.cifar_resnet, 18), "He 2015", CIFAR),
    "resnet1202": Entry(partial(he2015.cifar_resnet, 200), "He 2015", CIFAR),
    "plain20": Entry(partial(he2015.cifar_plain, 3), "He 2015", CIFAR, has_shortcuts=False),
    "plain32": Entry(partial(he2015.cifar_plain, 5), "He 2015", CIFAR, has_shortcuts=False),
    "plain44": Entry(partial(he2015.cifar_plain, 7), "He 2015", CIFAR, has_shortcuts=False),
    "plain56": Entry(partial(he2015.cifar_plain, 9), "He 2015", CIFAR, has_shortcuts=False),
    "plain110": Entry(partial(he2015.cifar_plain, 18), "He 2015", CIFAR, has_shortcuts=False),
    "preact_resnet18": Entry(he2016.preact_resnet18, "He 2016", IMAGENET),
    "preact_resnet34": Entry(he2016.preact_resnet34, "He 2016", IMAGENET),
    "preact_resnet50": Entry(he2016.preact_resnet50, "He 2016", IMAGENET),
    "preact_resnet101": Entry(he2016.preact_resnet101, "He 2016", IMAGENET),
    "preact_resnet152": Entry(he2016.preact_resnet152, "He 2016", IMAGENET),
    "preact_resnet200": Entry(he2016.preact_resnet200, "He 2016", IMAGENET),
    "preact_resnet110": Entry(partial(he2016.cifar_preact_resnet, 18), "He 2016", CIFAR),
    "preact_resnet164": Entry(he2016.preact_resnet164, "He 2016", CIFAR),
    "preact_resnet1001": Entry(he2016.preact_resnet1001, "He 2016", CIFAR),
    "resnext50_32x4d": Entry(xie2017.resnext50_32x4d, "Xie 2017", IMAGENET),
    "resnext101_32x4d": Entry(xie2017.resnext101_32x4d, "Xie 2017", IMAGENET),
    "resnext101_32x8d": Entry(xie2017.resnext101_32x8d, "Xie 2017", IMAGENET),
    "resnext101_64x4d": Entry(xie2017.resnext101_64x4d, "Xie 2017", IMAGENET),
    "resnext29_8x64d": Entry(xie2017.resnext29_8x64d, "Xie 2017", CIFAR),
    "resnext29_16x64d": Entry(xie2017.resnext29_16x64d, "Xie 2017", CIFAR),
    "wide_resnet16_8": Entry(partial(zagoruyko2016.cifar_wide_resnet, 2, 8), "Zagoruyko 2016", CIFAR),
    "wide_resnet28_10": Entry(partial(zagoruyko2016.cifar_wide_resnet, 4, 10), "Zagoruyko 2016", CIFAR),
    "wide_resnet40_4": Entry(partial(zagoruyko2016.cifar_wide_resnet, 6, 4), "Zagoruyko 2016", CIFAR),
    "wide_resnet50_2": Entry(zagoruyko2016.wide_resnet50_2, "Zagoruyko 2016", IMAGENET),
    "wide_resnet101_2": Entry(zagoruyko2016.wide_resnet101_2, "Zagoruyko 2016", IMAGENET),
    "resnet9": Entry(page2019.ResNet9, "Page 2019", CIFAR, has_shortcuts=False, has_activation=False),
    "resnet9_16": Entry(partial(page2019.ResNet9, 16), "Page 2019", CIFAR, has_shortcuts=False, has_activation=False),
    "lenet5": Entry(lecun1998.lenet5, "LeCun 1998", MNIST, has_shortcuts=False, has_activation=False),
}

# Families with a member for every n >= 1, of depth 6n + offset (None: for every cardinality and width); the numbers in
# the name go to the builder, n for the depth. The dict above comes first: resnet50 and resnet152, though 6n+2, are the
# ImageNet nets.
_N = "([1-9][0-9]*)"
OPEN_FAMILIES: tuple[tuple[str, int | None, Entry], ...] = (
    (rf"resnet{_N}", 2, Entry(he2015.cifar_resnet, "He 2015", CIFAR)),
    (rf"plain{_N}", 2, Entry(he2015.cifar_plain, "He 2015", CIFAR, has_shortcuts=False)),
    (rf"preact_resnet{_N}", 2, Entry(he2016.cifar_preact_resnet, "He 2016", CIFAR)),
    (rf"resnet{_N}_bn_after_addition", 2, Entry(he2016_units.bn_after_addition, "He 2016", CIFAR)),
    (rf"resnet{_N}_relu_before_addition", 2, Entry(he2016_units.relu_before_addition, "He 2016", CIFAR)),
    (rf"resnet{_N}_relu_preact", 2, Entry(he2016_units.relu_preact, "He 2016", CIFAR)),
    (rf"resnet{_N}_bn_after_relu", 2, Entry(he2016_units.bn_after_relu, "after He 2016", CIFAR)),
    (rf"wide_resnet{_N}_{_N}", 4, Entry(zagoruyko2016.cifar_wide_resnet, "Zagoruyko 2016", CIFAR)),
    (rf"resnext29_{_N}x{_N}d", None, Entry(xie2017.cifar_resnext, "Xie 2017", CIFAR)),
)


PARTS: dict[str, str | None] = {"shortcut": None, "normalisation": "batch", "activation": None}
"""What shapes a network of a name and can be chosen, and what it has where nothing is; None: its own."""


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    shortcut: str | None = None,
    zero_gamma: bool = False,
    drop_path: float = 0.0,
    normalisation: str = "batch",
    activation: str | None = None,
    initialisation: str | None = None,
) -> nn.Module:
    """A newly initialised network: normalised images (N, in_channels, H, W) to logits (N, num_classes).

    name: from `list_models`, a member of `OPEN_FAMILIES` such as any `resnet{6n+2}`, `torchvision/NAME` or `timm/NAME`.
    num_classes: the paper's (1000 on ImageNet, 10 on CIFAR) unless given. shortcut: one of `SHORTCUTS` instead of the
    network's own. zero_gamma: every residual branch starts at zero (Goyal et al. 2017, section 5.1). drop_path in
    [0, 1): stochastic depth. normalisation: batch, layer, group or none (see `replace_normalisation`). activation:
    relu or tanh instead of the network's own, in our residual and plain networks. initialisation: he, xavier or
    gaussian instead of the network's own (see `initialise_by`). Raises UserError for what does not exist or does not
    fit the network.
    """
    entry = find(name)
    if num_classes is not None and num_classes < 1:
        raise UserError(f"num_classes is {num_classes}; a classifier needs at least 1")
    if in_channels < 1:
        raise UserError(f"in_channels is {in_channels}; an image has at least 1 channel (1 grey, 3 colour)")
    if not 0 <= drop_path < 1:
        raise UserError(f"drop_path is {drop_path}; it is a probability in [0, 1)")
    options: dict[str, Any] = {"num_classes": num_classes or entry.task.classes, "in_channels": in_channels}
    if shortcut is not None:
        options["shortcut"] = _shortcut_builder(name, entry, shortcut)
    if zero_gamma or drop_path:
        _require_shortcuts(name, entry, shortcut, "zero_gamma" if zero_gamma else "drop_path")
        options["drop_path"] = drop_path
    if zero_gamma and normalisation == "none":
        raise UserError("zero_gamma needs a normalisation, and normalisation is none; leave one of them out")
    if activation is not None:
        options["activation"] = _activation(name, entry, activation)
    network = entry.build(**options)
    replace_normalisation(network, normalisation, name)
    if initialisation is not None:
        initialise_by(network, initialisation)
    if zero_gamma:
        assert isinstance(network, ResNet)
        for unit in network.units():
            unit.zero_residual()
    return network


def create_skeleton(name: str, **options: Any) -> nn.Module:
    """What `create_model` builds, less its weights: on the meta device, or partly so. Hardly any memory is taken."""
    try:
        with torch.device("meta"):
            return create_model(name, **options)
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        with _EmptyOnMeta():
            return create_model(name, **options)


class _EmptyOnMeta(TorchFunctionMode):
    """Puts what `torch.empty` makes on the meta device: all large weights, and none of a builder's arithmetic."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **({**(kwargs or {}), "device": "meta"} if func is torch.empty else kwargs or {}))


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a glob; without `*`, `?` or `[` in it, those that contain `pattern`.

    `torchvision/...` and `timm/...` list that library. Open families have more members than the list shows.
    """
    door = pattern.partition("/")[0]
    names = [f"{door}/{name}" for name in doors.DOORS[door].names()] if door in doors.DOORS else [*CATALOGUE]
    glob = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    return [name for name in names if fnmatchcase(name, glob)]


def find(name: str) -> Entry:
    """The entry of any name that `create_model` takes. Raises UserError, naming the nearest, for others."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if len(name) > _LONGEST_NAME:
        raise UserError(f"a network's name of {len(name):,} characters; residuum models lists the names there are")
    door, _, inner = name.partition("/")
    if inner and door in doors.DOORS:
        return _door_entry(door, inner)
    for pattern, offset, family in OPEN_FAMILIES:
        if match := re.fullmatch(pattern, name):
            first, *rest = numbers = [int(number) for number in match.groups()]
            if offset is not None:
                n, remainder = divmod(first - offset, 6)
                if remainder or n < 1:
                    raise _wrong_depth(name, first, offset)
                first = n
            if max(numbers) > _LARGEST_NUMBER:
                raise UserError(f"{name} is beyond what can be built; depth and width are at most {_LARGEST_NUMBER}")
            return replace(family, build=partial(family.build, first, *rest))
    raise unknown_name("network", name, CATALOGUE, "residuum models lists them all")


def is_foreign(name: str) -> bool:
    """Whether `name` is that of another library's network."""
    return name.partition("/")[0] in doors.DOORS


def _door_entry(door: str, name: str) -> Entry:
    library = doors.DOORS[door]
    task = Task(library.input_size(name), 1000)
    return Entry(partial(library.build, name), door, task, has_shortcuts=False, has_activation=False)


def _wrong_depth(name: str, depth: int, offset: int) -> UserError:
    def is_free(candidate: int) -> bool:
        taken = CATALOGUE.get(name.replace(str(depth), str(candidate), 1))
        return taken is None or taken.task is CIFAR

    smallest = 6 + offset
    below = next((d for d in range(depth - (depth - offset) % 6, smallest - 1, -6) if is_free(d)), None)
    above = next(d for d in itertools.count(max(smallest, depth + (offset - depth) % 6), 6) if is_free(d))
    nearest = f"the nearest are {below} and {above}" if below else f"the smallest is {above}"
    return UserError(f"depth {depth} is not 6n+{offset}; {nearest}.")


def _shortcut_builder(name: str, entry: Entry, shortcut: str) -> ShortcutBuilder:
    if not entry.has_shortcuts:
        raise UserError(f"{name} has no choice of shortcuts; leave out shortcut={shortcut!r} or take another network")
    if shortcut not in SHORTCUTS:
        raise unknown_name("shortcut", shortcut, SHORTCUTS)
    return SHORTCUTS[shortcut]


def _activation(name: str, entry: Entry, activation: str) -> Activation:
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if not entry.has_activation:
        raise UserError(f"{name} has no choice of activations; leave out activation={activation!r}, or take resnet20")
    return ACTIVATIONS[activation]


def _require_shortcuts(name: str, entry: Entry, shortcut: str | None, option: str) -> None:
    if not entry.has_shortcuts or shortcut == "none":
        raise UserError(
            f"{option} needs residuum's own residual units with shortcuts, and {name} is built without; "
            f"leave {option} out"
        )
