"""Weight files and networks, knowing neither architectures nor data: read safely, and load only what fits."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from residuum.errors import UserError, listed

StateDict = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_NAMED_KEYS = 3


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a `.safetensors` file, or of what `torch.save` wrote. Nothing in the file is executed.

    Of a training checkpoint the entry `state_dict` (or `model_state_dict`, `model`, `net`) is taken.
    Raises UserError when there is no such file, it is damaged, or it holds more than tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no weight file {path}; give a run folder, a .safetensors or a .pth file")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch_file(path)


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}); copy or save it again") from None


def _read_torch_file(path: Path) -> StateDict:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # hostile or damaged bytes raise nearly anything
        raise UserError(
            f"{path} is damaged, or pickles Python objects, which could run code and are not loaded; where "
            "you trust it, keep its tensors alone: torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    found = next((checkpoint[key] for key in _WRAPPERS if _is_state_dict(checkpoint, key)), checkpoint)
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path} holds no weights by name; save model.state_dict() there")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _is_state_dict(checkpoint: object, key: str) -> bool:
    return isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping)


def load_state_dict(
    network: nn.Module, state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()
) -> None:
    """Load `state` into `network`, all of it or nothing.

    optional: names that may be absent and keep their values; source: what is loaded, for the message.
    Raises UserError, with up to three names of each kind, when names or shapes differ.
    """
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
    found = [f"{kind}: {listed(names, _NAMED_KEYS)}" for kind, names in problems.items() if names]
    if found:
        raise UserError(f"{source} holds the weights of another network ({'; '.join(found)})")
    network.load_state_dict(dict(state), strict=False)


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
