"""Weight files and networks, knowing neither architectures nor data: read safely, and load only what fits.

A file may come from a stranger. Nothing in it is executed, reading takes no more memory than the file is large,
and what it says of itself reaches the terminal as text only.
"""

import pickletools
import zipfile
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from residuum.errors import UserError, listed, printable
from residuum.tensor_files import LONGEST_NAME, opened_safetensors, require_file

StateDict = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_NAMED_KEYS = 3
_MOST_OPCODES = 500_000  # of a pickle, which names some 15,000 tensors
_MOST_TUPLES = 1000  # of one within another
_PICKLES_BEFORE_ZIP = 5  # that a file from before PyTorch 1.6 starts with


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a `.safetensors` file, or of what `torch.save` wrote. Nothing in the file is executed.

    Of a training checkpoint the entry `state_dict` (or `model_state_dict`, `model`, `net`) is taken.
    Raises UserError when there is no such file, it is damaged, or it holds more than tensors.
    """
    require_file(path)
    if path.suffix != ".safetensors":
        return _read_torch_file(path)
    with opened_safetensors(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict


def read_shapes(path: Path) -> StateDict:
    """The tensors of a weight file without their values, on the meta device; of `.safetensors` the header is enough.

    Raises UserError as `read_state_dict`.
    """
    require_file(path)
    if path.suffix != ".safetensors":
        return {name: tensor.to("meta") for name, tensor in _read_torch_file(path).items()}
    with opened_safetensors(path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _read_torch_file(path: Path) -> StateDict:
    try:
        _refuse_bombs(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # hostile or damaged bytes raise nearly anything
        raise UserError(
            f"{path} is damaged, or pickles Python objects, which could run code and are not loaded; where "
            "you trust it, keep its tensors alone: torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    found = next((checkpoint[key] for key in _WRAPPERS if _is_state_dict(checkpoint, key)), checkpoint)
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path} holds no weights by name; save model.state_dict() there")
    state = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    odd = [printable(name) for name, value in state.items() if len(name) > LONGEST_NAME or not _is_ordinary(value)]
    if odd:
        raise UserError(f"{path} holds {listed(odd, _NAMED_KEYS)} in a form no network has; save plain, dense tensors")
    return state


def _refuse_bombs(path: Path) -> None:
    """Refuse what would unpack to more than the file, or for hours: torch.save writes nothing such."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            file.seek(0)
            for _ in range(_PICKLES_BEFORE_ZIP):
                _refuse_hash_bomb(file)
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # An archive that starts later in the file is one that other readers may see another archive in.
        first = min(entry.header_offset for entry in entries)
        if first or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                _refuse_hash_bomb(archive.open(entry))


def _refuse_hash_bomb(stream: IO[bytes]) -> None:
    """Refuse a pickle of tuples that hold one another twice, to a depth: as a key, all of 2**depth would be hashed.

    Followed are, for each object on the pickle machine's stack, the tuples within it.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[object, int] = {}
    for opcode, argument, _ in islice(pickletools.genops(stream), _MOST_OPCODES):
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            taken = opcode.stack_before
            has_mark = pickletools.markobject in taken
            start = marks.pop() - taken.index(pickletools.markobject) if has_mark else len(stack) - len(taken)
            within = 1 + sum(stack[start:]) if "TUPLE" in opcode.name else 0
            stack[start:] = [within] * len(opcode.stack_after)
            if within > _MOST_TUPLES:
                raise ValueError
    if opcode.name != "STOP":
        raise ValueError


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether all of its values are in memory: not on meta, sparse, quantised or repeated by a stride of zero."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.itemsize <= tensor.untyped_storage().nbytes()


def _is_state_dict(checkpoint: object, key: str) -> bool:
    return isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping)


def load_state_dict(
    network: nn.Module, state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()
) -> None:
    """Load `state` into `network`, all of it or nothing.

    optional: names that may be absent and keep their values; source: what is loaded, for the message.
    Raises UserError, with up to three names of each kind, when names, shapes or kinds of number differ.
    """
    check_fit(network, state, source, optional)
    _check_kinds(network, state, source)
    network.load_state_dict(dict(state), strict=False)


def fill_skeleton(skeleton: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put `state` in the place of the weights of a network on the meta device, which is then a network on the CPU.

    Each keeps the network's type of number and is a copy, so that the file may change. Raises UserError as
    `load_state_dict`.
    """
    check_fit(skeleton, state, source)
    _check_kinds(skeleton, state, source)
    absent = torch.zeros(())  # a counter of an old file
    own = skeleton.state_dict()
    weights = {name: state.get(name, absent).to(tensor.dtype, copy=True) for name, tensor in own.items()}
    skeleton.load_state_dict(weights, assign=True)


def _check_kinds(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    own = network.state_dict()
    odd = [name for name in own if name in state and _is_real(own[name]) and not _is_real(state[name])]
    if odd:
        raise UserError(
            f"{source} holds other kinds of number than the network: {_kinds(odd, state)}; save it as float32"
        )


def check_fit(network: nn.Module, state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Raise UserError, as `load_state_dict`, when names or shapes differ; either side may be on the meta device."""
    own = network.state_dict()
    # Files older than PyTorch 0.4.1 lack the counters, and nothing at inference depends on them.
    missing = [
        name for name in own if name not in state and name not in optional and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in own]
    differing = [
        f"{name} {_shape(state[name])} instead of {_shape(own[name])}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    found = [f"{kind}: {listed(map(printable, names), _NAMED_KEYS)}" for kind, names in problems.items() if names]
    if found:
        raise UserError(f"{source} holds the weights of another network ({'; '.join(found)})")


def _is_real(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point


def _kinds(names: list[str], state: Mapping[str, Tensor]) -> str:
    return listed((f"{name} {str(state[name].dtype).removeprefix('torch.')}" for name in names), _NAMED_KEYS)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def head(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The name and the module that gives the class scores: the last linear or convolutional one."""
    *_, last = _layers(network)
    return last


def first_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The name and the module that sees the image: the first linear or convolutional one."""
    return next(iter(_layers(network)))


def _layers(network: nn.Module) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    return [(name, part) for name, part in network.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
