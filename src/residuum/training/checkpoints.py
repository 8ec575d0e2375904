"""Resume states: every tensor in one safetensors file, everything else in JSON beside it. No pickle.

A checkpoint is a folder `step-00001234` holding `state.safetensors`, `state.json` and `SHA256SUMS`, the checksums of
the two in the format that `sha256sum -c` reads. It appears whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim import Optimizer

from residuum.errors import NO_ROOM, UserError, in_words
from residuum.files import remove_folder, whole_folder

_TENSORS, _REST, _SUMS = "state.safetensors", "state.json", "SHA256SUMS"
_TENSOR = "tensor:"
_DAMAGED = "damaged-"


class DamagedCheckpointError(UserError):
    """A checkpoint whose files are not those that were written."""


class SaveError(UserError):
    """A checkpoint could not be written; those before it are whole."""


class CheckpointWriter:
    """Writes checkpoints beside the training: `write` waits only while the state is copied.

    A state is a nest of dicts, lists, numbers, strings and tensors. One is being written at a time. A writing that
    failed is raised, as SaveError, by whatever is called next.
    keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:  # else what ends the block says more
            self.wait()

    def write(self, step: int, state: Mapping[str, Any], pinned: Collection[int] = ()) -> None:
        """Take a copy of `state` and begin to write it as checkpoint `step`, once the one before is written.

        `pinned`: steps whose checkpoints are spared, too.
        """
        self.wait()
        tensors: dict[str, Tensor] = {}
        skeleton = _separate(state, "", tensors)
        self._writing = self._thread.submit(_write, self._folder, step, tensors, skeleton, self._keep, pinned)

    def wait(self) -> None:
        """Until what was begun is on the disk."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except OSError as error:
                saved = list_checkpoints(self._folder)
                last = f"update {step_of(saved[-1]):,} is the last that is saved" if saved else "nothing is saved yet"
                advice = "; make room there" if error.errno in NO_ROOM else ""
                raise SaveError(f"cannot save in {self._folder} ({in_words(error)}); {last}{advice}") from error

    def path(self, step: int) -> Path:
        """Where checkpoint `step` lies."""
        return _path(self._folder, step)

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints later than `step`."""
        self.wait()
        for checkpoint in list_checkpoints(self._folder):
            if step_of(checkpoint) > step:
                remove_folder(checkpoint)

    def raise_failure(self) -> None:
        """Raise what went wrong with the last writing, if it has ended; costs nothing."""
        if self._writing is not None and self._writing.done():
            self.wait()


def _write(
    folder: Path, step: int, tensors: dict[str, Tensor], skeleton: Any, keep: int, pinned: Collection[int]
) -> None:
    content = {_TENSORS: save(tensors), _REST: (json.dumps(skeleton, indent=1) + "\n").encode()}
    with whole_folder(_path(folder, step)) as temporary:
        for name, data in content.items():
            (temporary / name).write_bytes(data)
        sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items()]
        (temporary / _SUMS).write_text("".join(sums), encoding="ascii")
    for old in list_checkpoints(folder)[:-keep]:
        if step_of(old) not in pinned:
            remove_folder(old)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The number of updates that `checkpoint` was taken after."""
    return int(checkpoint.name.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdecimal()), key=step_of)


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is sound, None where there is none yet, and a line for each that is not.

    A damaged one is set aside under the name `damaged-step-…`. Raises UserError when all are damaged.
    """
    lines = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            _check_sums(checkpoint)
        except DamagedCheckpointError as error:
            aside = checkpoint.with_name(f"{_DAMAGED}{checkpoint.name}")
            lines.append(f"{error}; it is set aside as {aside.name}, and the one before it is used")
            if aside.exists():
                remove_folder(aside)
            os.replace(checkpoint, aside)
            continue
        return checkpoint, lines
    if any(folder.glob(f"{_DAMAGED}*")):
        raise UserError(f"every checkpoint in {folder} is damaged; start a new run in another folder")
    return None, lines


def _check_sums(checkpoint: Path) -> None:
    try:
        sums = _read_sums(checkpoint / _SUMS)
        wrong = [name for name in (_TENSORS, _REST) if sums.get(name) != _sha256(checkpoint / name)]
    except (FileNotFoundError, ValueError) as error:
        reason = in_words(error) if isinstance(error, OSError) else f"unreadable {_SUMS}"
        raise DamagedCheckpointError(f"checkpoint {checkpoint.name} is damaged ({reason})") from None
    except OSError as error:  # the disk's fault may pass, and says nothing about the checkpoint
        raise UserError(f"checkpoint {checkpoint} cannot be read ({in_words(error)}); see to that and go on") from None
    if wrong:
        raise DamagedCheckpointError(f"checkpoint {checkpoint.name} is damaged ({wrong[0]} is not as it was written)")


def _read_sums(path: Path) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in path.read_text(encoding="ascii").splitlines())
    return {name: digest for digest, name in pairs}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """The state that a writer was given, tensors on the CPU. Raises DamagedCheckpointError."""
    _check_sums(checkpoint)
    try:
        tensors = load_file(checkpoint / _TENSORS)
        skeleton = json.loads((checkpoint / _REST).read_text(encoding="utf-8"))
        state: dict[str, Any] = _join(skeleton, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise DamagedCheckpointError(f"checkpoint {checkpoint} cannot be read ({error})") from None
    return state


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


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The optimiser's state dict, the rate as a number also where it is kept on the device."""
    state = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load `state` into `optimizer`, giving each tensor the memory layout of its parameter again.

    The optimiser's own settings hold, but for the rate, which follows its schedule. Fused kernels walk parameter and
    momentum side by side in memory; a file keeps the plain layout only.
    """
    groups = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    restored = [{**own, "lr": saved["lr"]} for own, saved in groups]
    optimizer.load_state_dict({"state": state["state"], "param_groups": restored})
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(value)
