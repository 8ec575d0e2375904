"""What a network is made of: parameters and multiply-adds, in all and stage by stage."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from residuum.errors import UserError
from residuum.models.catalogue import create_skeleton, find, list_models
from residuum.models.published import MULTIPLY_ADDS, PARAMETERS, TABLE_1, TABLE_6
from residuum.records import Cell, Table

InputSize = tuple[int, int, int]


class Summary(NamedTuple):
    """A network's size for one image; `stages` has a row for each of its children in the order they run."""

    parameters: int
    multiply_adds: int
    stages: Table


class _Call(NamedTuple):
    path: str
    module: nn.Module
    shape: Sequence[int]


def summarise(network: nn.Module, input_size: InputSize) -> Summary:
    """Count parameters, and multiply-adds for one image of `input_size` (C, H, W), in any network.

    Multiply-adds as the papers count them: of convolutions and fully connected layers; normalisation,
    activation, pooling and the products of attention are left out. Nothing is computed: the forward pass runs
    on shapes alone. Raises UserError for an input that does not go through the network.
    """
    with _watched(network) as calls:
        _run_on_an_empty_batch(network, input_size)
        if not _is_batch_first(calls):
            calls.clear()
            _run_without_data(network, input_size)
    outputs: dict[str, str] = {}
    work: Counter[str] = Counter()
    for path, module, shape in calls:
        child, _, inner = path.partition(".")
        if child and not inner:
            outputs[child] = _size(shape[1:])
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            work[child] += math.prod(shape[shape[0] == 0 :]) * module.weight[0].numel()
    parameters = sum(p.numel() for p in network.parameters())
    total = ("total", "", "", parameters, work.total())
    columns = ("layer", "content", "output", "parameters", "multiply-adds")
    title = f"{type(network).__name__} on {_size(input_size)}"
    return Summary(parameters, work.total(), Table(title, columns, (*_rows(network, outputs, work), total)))


def models_table(pattern: str = "*") -> Table:
    """Every network whose name matches (see `list_models`): its size at its paper's input.

    "published" is what the paper prints. A name of an open family (`resnet26`) is found too. Raises UserError
    if nothing matches.
    """
    names = _matching(pattern)
    columns = ("model", "parameters", "multiply-adds", "input", "paper", "published")
    notes = (f"published: multiply-adds in {TABLE_1}; parameters in {TABLE_6}",)
    return Table("Networks", columns, tuple(_model_row(name) for name in names), notes)


def paper_input(name: str) -> InputSize:
    """The (C, H, W) the network's paper trains it on."""
    return find(name).task.input_size


def _matching(pattern: str) -> list[str]:
    names = list_models(pattern)
    if not names and any(character in pattern for character in "*?["):
        raise UserError(f"no network matches {pattern!r}; residuum models lists them all")
    try:
        find(pattern)
    except UserError:
        if not names:
            raise
        return names
    return names if pattern in names else [pattern, *names]  # preact_resnet20 is in preact_resnet200's name


def _model_row(name: str) -> tuple[Cell, ...]:
    entry = find(name)
    network = create_skeleton(name, in_channels=entry.task.input_size[0])
    summary = summarise(network, entry.task.input_size)
    return (
        name,
        summary.parameters,
        summary.multiply_adds,
        _size(entry.task.input_size),
        entry.paper,
        _published(name),
    )


def _published(name: str) -> str:
    if name in MULTIPLY_ADDS:
        return f"{MULTIPLY_ADDS[name] / 1e9:.1f} G multiply-adds"
    return f"{PARAMETERS[name] / 1e6:.3g} M parameters" if name in PARAMETERS else ""


def _run_on_an_empty_batch(network: nn.Module, input_size: InputSize) -> None:
    # On the meta device PyTorch works shapes out in Python and imports its compiler first, which takes a second;
    # memory that is asked for and not touched takes nothing.
    memory = {name: torch.empty(like.shape, dtype=like.dtype) for name, like in _tensors(network) if like.is_meta}
    like = _like(network)
    images = torch.zeros(0, *input_size, dtype=like.dtype, device="cpu" if memory else like.device)
    # Transformers reshape with -1, which an empty batch leaves undecided: whatever fails is run another way.
    with suppress(Exception), torch.no_grad():
        functional_call(network, memory, (images,))


def _is_batch_first(calls: list[_Call]) -> bool:
    """Whether the run came to the end, and no layer folded windows or tokens into the axis that is empty."""
    counted = [shape for _, module, shape in calls if isinstance(module, (nn.Conv2d, nn.Linear))]
    return bool(calls) and calls[-1].path == "" and all(len(shape) in (2, 4) for shape in counted)


def _run_without_data(network: nn.Module, input_size: InputSize) -> None:
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in _tensors(network)}
    try:
        with torch.no_grad():
            functional_call(network, shapes, (_like(network).new_zeros(1, *input_size, device="meta"),))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"an input of {_size(input_size)} does not go through this network: {reason}") from error


def _like(network: nn.Module) -> Tensor:
    """A tensor of the device and type the network computes in."""
    return next((tensor for _, tensor in _tensors(network)), torch.empty(0))


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(network.named_parameters(), network.named_buffers())


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[_Call]]:
    """The calls of the network, its children and its counted layers; evaluation mode while it lasts."""
    calls: list[_Call] = []

    def watch(path: str, module: nn.Module) -> RemovableHandle:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            calls.append(_Call(path, module, output.shape if isinstance(output, Tensor) else ()))

        return module.register_forward_hook(record)

    watched = (
        (path, module)
        for path, module in network.named_modules()
        if "." not in path or isinstance(module, (nn.Conv2d, nn.Linear))
    )
    hooks = [watch(path, module) for path, module in watched]
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training


def _rows(network: nn.Module, outputs: dict[str, str], work: Counter[str]) -> Iterator[tuple[Cell, ...]]:
    children = dict(network.named_children())
    for name in [*outputs, *(name for name in children if name not in outputs)]:
        child = children[name]
        parameters = sum(p.numel() for p in child.parameters())
        if not isinstance(child, nn.Identity) and (name in outputs or parameters):
            yield name, _content(child), outputs.get(name, ""), parameters, work[name]
    own = sum(p.numel() for p in network.parameters(recurse=False))
    if own:
        yield "(own)", "", "", own, 0


def _content(module: nn.Module) -> str:
    """A layer in the words of the papers' tables: `7x7, 64, stride 2`, `3 x Bottleneck`."""
    if isinstance(module, nn.Conv2d):
        kernel, stride = _size(module.kernel_size), module.stride[0]
        return f"{kernel}, {module.out_channels}" + (f", stride {stride}" if stride != 1 else "")
    kinds = {type(child).__name__ for child in module} if isinstance(module, nn.Sequential) else set()
    if len(kinds) == 1:
        return f"{len(module)} x {kinds.pop()}"  # type: ignore[arg-type]
    return type(module).__name__


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
