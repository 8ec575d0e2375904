"""Looks on while a network computes: hooks see its layers, a function mode what stands between them."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from residuum.diagnosis.facts import Kind, Normaliser
from residuum.diagnosis.functions import activation, added, can_die, first_of_numbers, is_weighted, tensors
from residuum.diagnosis.numbers import NOTHING, Moments, lengths, moments, precise, variation

_END = 0.01  # how near its end an output is saturated: a tanh passes on 2 % of a gradient there, a sigmoid 1 %
_ENOUGH = 50  # batches after which, by a momentum of 0.1, 0.5 % of the statistics are left that it started from


class _Trail(NamedTuple):
    """Where a tensor comes from: how many layers lie on the longest path to it, and the last layer of it (or -1)."""

    depth: int
    layer: int


@dataclass
class SeenLayer:
    """A call of a layer, noted as it happens; the gradient comes later."""

    name: str
    call: int
    module: nn.Module
    kind: Kind
    moments: Moments = NOTHING
    variation: float = math.nan
    lengths: Tensor | None = None
    gradient_std: float = math.nan
    sensitivity: float = math.nan
    activation: str = ""
    dead: float = math.nan
    saturated: float = math.nan
    normaliser: Normaliser | None = None


@dataclass
class SeenJoin:
    """An addition of two activations, noted as it happens."""

    name: str
    after: int
    branch: Moments
    carried: Moments
    std: float = math.nan
    gradient_std: float = math.nan


@dataclass(eq=False)
class Watch(TorchFunctionMode):
    """While it is entered, notes what `network` does to `images` images; the gradients that come later, too."""

    network: nn.Module
    images: int
    layers: list[SeenLayer] = field(default_factory=list)
    joins: list[SeenJoin] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._trails = WeakTensorKeyDictionary()
        self._within: list[tuple[str, int]] = []  # the modules that are computing, with their number if layers
        self._calls: Counter[str] = Counter()
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        try:
            for path, module in self.network.named_modules():
                begins = self._begins(path, layer_kind(module))
                self._hooks.append(module.register_forward_pre_hook(begins, with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._ends))
            super().__enter__()  # type: ignore[no-untyped-call]
        except BaseException:
            self._remove_hooks()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def follow(self, images: Tensor) -> None:
        """Take this tensor for an activation: what the network is given."""
        self._trails[images] = _Trail(0, -1)

    def _begins(self, path: str, kind: Kind | None) -> Any:
        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._within.append((path, len(self.layers) if kind else -1))
            if kind:
                seen = SeenLayer(path, self._calls[path], module, kind)
                seen.normaliser = _normaliser(module, next(tensors([args, kwargs]), None))
                self._calls[path] += 1
                self.layers.append(seen)

        return begin

    def _ends(self, module: nn.Module, args: Any, output: Any) -> None:
        _, number = self._within.pop()
        result = first_of_numbers(output)
        if number < 0 or result is None:
            return
        seen = self.layers[number]
        seen.moments, seen.variation = moments(result), variation(result, self.images)
        seen.lengths = lengths(result, self.images)
        depth = self._trails[result].depth if result in self._trails else 1
        self._trails[result] = _Trail(depth, number)
        if result.requires_grad:
            result.register_hook(lambda slope: self._note_gradient(seen, slope))  # type: ignore[no-untyped-call]

    def _note_gradient(self, seen: SeenLayer | SeenJoin, gradient: Tensor) -> None:
        seen.gradient_std = moments(gradient).std * self.images
        if isinstance(seen, SeenLayer) and seen.lengths is not None:
            slopes = lengths(gradient, self.images)
            seen.sensitivity = math.nan if slopes is None else (seen.lengths * slopes).mean().item() * self.images

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        join = self._begin_join(name, args, kwargs)
        operands = [*tensors([args, kwargs])]
        trails = [self._trails[operand] for operand in operands if operand in self._trails]
        result = func(*args, **kwargs)
        if not trails or (name == "__get__" and not isinstance(result, Tensor)):
            return result
        depth, layer = max(trails)
        for output in tensors(result):
            if output.is_floating_point():
                self._trails[output] = _Trail(depth + is_weighted(name, operands), layer)
        if isinstance(result, Tensor):
            self._end_join(join, result)
            self._note_activation(name, args, kwargs, result, layer)
        return result

    def _begin_join(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SeenJoin | None:
        pair = added(name, args, kwargs)
        if pair is None or not all(operand in self._trails for operand in pair):
            return None
        first, second = pair
        is_first = self._trails[first].depth >= self._trails[second].depth
        branch, carried = (moments(value) for value in (pair if is_first else (second, first)))
        return SeenJoin(self._within[-1][0] if self._within else "", len(self.layers), branch, carried)

    def _end_join(self, join: SeenJoin | None, result: Tensor) -> None:
        if join is None:
            return
        join.std = moments(result).std
        self.joins.append(join)
        if result.requires_grad:
            result.register_hook(lambda slope: self._note_gradient(join, slope))  # type: ignore[no-untyped-call]

    def _note_activation(self, name: str, args: Any, kwargs: Any, result: Tensor, layer: int) -> None:
        kind, ends = activation(name, args, kwargs)
        within = next((number for _, number in reversed(self._within) if number >= 0), layer)
        if not kind or within < 0 or self.layers[within].activation:
            return
        seen = self.layers[within]
        seen.activation = kind
        if can_die(kind):
            seen.dead = _share_of_zero_units(result, unit_axis(seen.module, result))
        if ends is not None:
            exact, (low, high) = precise(result), ends
            seen.saturated = ((exact <= low + _END) | (exact >= high - _END)).double().mean().item()


def layer_kind(module: nn.Module) -> Kind | None:
    """What a module counts as; None for one that is no layer but made of layers, or has no weights."""
    if isinstance(module, _ConvNd):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    children = [child for name, child in module.named_children() if name != "parametrizations"]
    if isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)) or (
        "norm" in type(module).__name__.lower() and not children
    ):
        return "normalisation"
    own = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    return "other" if own and not children else None


def unit_axis(module: nn.Module, output: Tensor) -> int:
    """The axis of a layer's output that counts its units or channels."""
    if output.ndim <= 2 or isinstance(module, nn.Linear):
        return -1
    if isinstance(module, nn.LayerNorm) and output.shape[-1] == module.normalized_shape[-1]:
        return -1
    return 1


def _share_of_zero_units(result: Tensor, axis: int) -> float:
    units = result.detach().movedim(axis, 0).flatten(1)
    return (units == 0).all(dim=1).double().mean().item()


def _normaliser(module: nn.Module, given: Tensor | None) -> Normaliser | None:
    """A batch normalisation's statistics beside those of what it is given, (N, C, ...)."""
    if not isinstance(module, _BatchNorm) or given is None or given.ndim < 2 or not given.numel():
        return None
    values = precise(given).transpose(0, 1).flatten(1)
    mean, variance = values.mean(dim=1), values.var(dim=1, correction=0)
    flat = variance <= 1e-10 * (mean.square() + variance)  # what rounding leaves of the variance of equal numbers
    small = (variance < module.eps).double().mean().item()
    shift = stretch = math.nan
    counted = module.num_batches_tracked
    is_old = counted is None or counted.item() >= _ENOUGH
    if module.running_mean is not None and module.running_var is not None and is_old:
        kept = precise(module.running_var) + module.eps
        shift = (mean - precise(module.running_mean)).square().div(kept).mean().sqrt().item()
        stretch = ((variance + module.eps) / kept).median().item()
    return Normaliser(module.eps, small, flat.double().mean().item(), shift, stretch, module.momentum)
