"""What one training step computes and moves, operator by operator.

PyTorch itself is asked: forward and backward pass run once on two and once on three images while every operator that
is dispatched is written down, so autocast's casts, copies and the additions of gradients are among them. From the two
runs follows what an operator costs for any number of images. The assumptions:

- Nothing is fused and nothing stays in registers: each operator reads its inputs and writes its outputs once, at the
  element size that they have (under bf16 autocast: 2 bytes for activations; 4 for master weights, statistics and loss).
- Batch normalisation reads its input twice in training, for the statistics and to normalise; its backward pass reads
  input and gradient twice, for the two sums and for the result.
- A convolution's backward pass is two convolutions, each of which reads the gradient; the first layer's is one.
- Views and fresh memory cost nothing. Arithmetic is that of convolutions and matrix products.
- The optimiser is SGD with momentum, fused: it reads weight, gradient and momentum and writes weight and momentum.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from training_step import forward_and_backward, random_batch

MOMENTUM_PASSES = 5  # over the parameters: three read, two written

_KINDS = {
    "convolution": ("convolution", "convolution_backward"),
    "batch norm": (
        "native_batch_norm",
        "native_batch_norm_backward",
        "cudnn_batch_norm",
        "cudnn_batch_norm_backward",
        "miopen_batch_norm",
        "miopen_batch_norm_backward",
        "_native_batch_norm_legit",
        "batch_norm_backward",
        "_batch_norm_with_update",
    ),
    "ReLU": ("relu", "relu_", "threshold_backward"),
    "addition": ("add", "add_"),
    "fully connected": ("addmm", "mm"),
    "cast": ("_to_copy",),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_WITHOUT_WORK = (
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "as_strided_",
    "_unsafe_view",
)


class Operator(NamedTuple):
    """One operator's work in a step of n images: n `arithmetic`; `bytes_fixed` + n `bytes_per_image`.

    kind: convolution, batch norm, ReLU, addition, fully connected, cast, optimiser, other. dtype: its first operand's.
    arithmetic: floating-point operations, a multiply-add being two.
    """

    kind: str
    dtype: str
    arithmetic: float
    bytes_fixed: float
    bytes_per_image: float

    def bytes(self, images: int) -> float:
        return self.bytes_fixed + images * self.bytes_per_image


class _Seen(NamedTuple):
    name: str
    dtype: str
    arithmetic: int
    bytes: int


def training_operators(network: nn.Module, input_size: tuple[int, int, int], dtype: torch.dtype) -> list[Operator]:
    """The operators of a training step of `network` on images of `input_size` (C, H, W), as its device runs them.

    The network is left in training mode, with gradients and with statistics of random images.
    """
    network.train()
    device = next(network.parameters()).device

    def run(images: int) -> None:
        network.zero_grad()
        forward_and_backward(network, *random_batch(images, input_size, device), dtype)

    momentum = MOMENTUM_PASSES * sum(size_in_bytes(weight) for weight in network.parameters() if weight.requires_grad)
    return [*operators(run), Operator("optimiser", "float32", 0.0, momentum, 0.0)]


def operators(run: Callable[[int], None]) -> list[Operator]:
    """The operators of `run(images)`, in order; what each costs must be linear in the images."""
    return [_through(two, three) for two, three in zip(_record(run, 2), _record(run, 3), strict=True)]


def _record(run: Callable[[int], None], images: int) -> list[_Seen]:
    with _Recorder() as recorder:
        run(images)
    return recorder.seen


def _through(two: _Seen, three: _Seen) -> Operator:
    """The line through what an operator cost for two and for three images."""
    assert two.name == three.name
    slope = three.bytes - two.bytes
    return Operator(kind_of(two.name), two.dtype, three.arithmetic - two.arithmetic, two.bytes - 2 * slope, slope)


class _Recorder(TorchDispatchMode):
    """Writes down each operator that computes or copies."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Seen] = []

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        name = name_of(operator)
        if not operator.is_view and name not in _WITHOUT_WORK:
            first = next(_tensors([args, result]), None)
            dtype = str(first.dtype).removeprefix("torch.") if first is not None else ""
            self.seen.append(_Seen(name, dtype, arithmetic(name, args, result), bytes_moved(name, args, result)))
        return result


class Clock(TorchDispatchMode):
    """Adds up the seconds of each kind of operator. On a CPU only: a GPU's operators are still at work on return."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        start = time.perf_counter()
        result = operator(*args, **(kwargs or {}))
        self.seconds[kind_of(name_of(operator))] += time.perf_counter() - start
        return result


def name_of(operator: Any) -> str:
    """`convolution` for `aten.convolution.default`."""
    return operator.overloadpacket.__name__


def kind_of(name: str) -> str:
    """The kind of layer an operator belongs to, "other" for what has none."""
    return _KIND_OF.get(name, "other")


def arithmetic(name: str, arguments: Sequence[Any], result: Any) -> int:
    """The floating-point operations of a convolution or matrix product; 0 for all else."""
    if name == "convolution":
        return 2 * result.numel() * arguments[1][0].numel()
    if name == "convolution_backward":
        gradient, _, weight = arguments[:3]
        return 2 * gradient.numel() * weight[0].numel() * _convolutions(arguments)
    if name in ("mm", "addmm"):
        return 2 * result.numel() * arguments[-2].shape[1]
    return 0


def bytes_moved(name: str, arguments: Sequence[Any], result: Any) -> int:
    """The bytes that an operator reads and writes, by the assumptions above."""
    moved = sum(size_in_bytes(tensor) for tensor in _tensors([arguments, result]))
    if name == "convolution_backward":
        return moved + (_convolutions(arguments) - 1) * size_in_bytes(arguments[0])
    if kind_of(name) == "batch norm":  # of the arguments only activations have four axes
        return moved + sum(size_in_bytes(tensor) for tensor in _tensors(arguments) if tensor.ndim == 4)
    return moved


def _convolutions(arguments: Sequence[Any]) -> int:
    """How many of a convolution's gradients are wanted, those of its input and its weight; the last argument says."""
    wanted: list[bool] = arguments[-1]
    return sum(wanted[:2])


def size_in_bytes(tensor: Tensor) -> int:
    """What is in memory of a tensor: an axis that is only expanded is there once."""
    lengths = (length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not length)
    return math.prod(lengths) * tensor.element_size()


def _tensors(nest: Any) -> Iterator[Tensor]:
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, (list, tuple)):
        for part in nest:
            yield from _tensors(part)
