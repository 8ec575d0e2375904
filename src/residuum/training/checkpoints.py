"""Resume states: every tensor in one safetensors file, everything else in JSON beside it. No pickle.

A checkpoint is a folder `step-00001234` holding `state.safetensors` and `state.json`; it appears whole or not at all.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim import Optimizer

from residuum.errors import UserError
from residuum.files import whole_folder, write_json

KEPT = 2
_TENSOR = "tensor:"


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write `state`, a nest of dicts, lists, numbers, strings and tensors, as checkpoint `step`; keep two."""
    tensors: dict[str, Tensor] = {}
    skeleton = _separate(state, "", tensors)
    target = folder / f"step-{step:08d}"
    with whole_folder(target) as temporary:
        (temporary / "state.safetensors").write_bytes(save(tensors))
        write_json(temporary / "state.json", skeleton)
    for old in list_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` was given, tensors on the CPU. Raises UserError when it cannot be read."""
    try:
        tensors = load_file(checkpoint / "state.safetensors")
        skeleton = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {checkpoint} cannot be read ({error}); remove that folder to resume from the one before"
        ) from None
    return _join(skeleton, tensors)


def _separate(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` with each tensor moved into `tensors` and its name put in the tensor's place."""
    if isinstance(value, Tensor):
        # A copy of its own: safetensors refuses tensors that share memory, and the file holds the plain layout.
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return _TENSOR + path
    if isinstance(value, Mapping):
        keys = {"int" if isinstance(key, int) else "str" for key in value}
        assert len(keys) <= 1
        entries = {str(key): _separate(item, f"{path}/{key}", tensors) for key, item in value.items()}
        return {"int keys": entries} if keys == {"int"} else entries
    if isinstance(value, (list, tuple)):
        return [_separate(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    assert value is None or isinstance(value, (bool, int, float, str)), f"{path} holds a {type(value).__name__}"
    return value


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        # A copy in memory of torch's own: a sum over the file's unaligned memory can differ in its last bit.
        return tensors[value.removeprefix(_TENSOR)].clone()
    if isinstance(value, dict) and set(value) == {"int keys"}:
        return {int(key): _join(item, tensors) for key, item in value["int keys"].items()}
    if isinstance(value, dict):
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load `state` into `optimizer`, giving each tensor the memory layout of its parameter again.

    Fused kernels walk parameter and momentum side by side in memory; a file keeps the plain layout only.
    """
    optimizer.load_state_dict(dict(state))
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(value)
