"""What happens between modules, by the names that PyTorch gives its functions."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

WEIGHTED = frozenset(
    {
        *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)),
        *("linear", "bilinear", "multi_head_attention_forward"),
    }
)
PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "addmm", "baddbmm"})
NORMALISING = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})

_ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
_RECTIFIERS = frozenset({"relu", "relu_", "threshold", "threshold_", "hardswish", "gelu", "silu", "mish"})
_BOUNDED = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0)}
_OTHERS = frozenset({"leaky_relu", "elu", "selu", "celu", "softplus", "prelu", "rrelu"})
_CLAMPS = frozenset({"clamp", "clip", "clamp_min", "clamp_", "clip_", "clamp_min_"})


def is_weighted(name: str, operands: list[Tensor]) -> bool:
    """Whether the function `name` is a layer on the path: it multiplies by weights, or normalises."""
    if name in PRODUCTS:
        return any(isinstance(operand, nn.Parameter) for operand in operands)
    return name in WEIGHTED or name in NORMALISING


def added(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The two tensors of one shape that the function adds; None if it does anything else."""
    if name not in _ADDITIONS or kwargs.get("alpha", 1) != 1:
        return None
    first = args[0] if args else kwargs.get("input")
    second = args[1] if len(args) > 1 else kwargs.get("other")
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape:
        return (first, second) if first.ndim > 1 and first.is_floating_point() else None
    return None


def activation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, tuple[float, float] | None]:
    """What nonlinearity the function is ("" for none), and the ends that it saturates at, if it has two of a kind.

    Whatever sets to zero all below is called relu: a ReLU6 is a hardtanh or a clamp from 0.
    """
    plain = name.removesuffix("_")
    low = _bound(args, kwargs)
    if name in _CLAMPS or (plain == "hardtanh" and low is not None):
        return ("relu", None) if low == 0 else (plain, (-1.0, 1.0)) if plain == "hardtanh" else ("", None)
    if plain in _BOUNDED:
        return plain, _BOUNDED[plain]
    return (plain, None) if plain in _RECTIFIERS or plain in _OTHERS else ("", None)


def _bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The lower end of a clamp or a hardtanh, where it is given as a number."""
    given = [kwargs[key] for key in ("min", "min_val") if key in kwargs] or list(args[1:2])
    return float(given[0]) if given and isinstance(given[0], (int, float)) else None


def can_die(kind: str) -> bool:
    """Whether the activation is zero over a range of inputs, so that a unit may be zero for good."""
    return kind in _RECTIFIERS


def first_of_numbers(values: Any) -> Tensor | None:
    """The first of the tensors that holds floating-point numbers, if any does."""
    return next((tensor for tensor in tensors(values) if tensor.is_floating_point()), None)


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results, in lists, tuples and dicts, too."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)
