"""An exported model: a folder with a file for an engine, and beside it all that its use needs. Read without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, printable
from residuum.hub import is_on_hub
from residuum.model_config import (
    CONFIG,
    EXPORT,
    SECTION,
    classes_of,
    is_export,
    model_folder,
    preprocessing_of,
    read_config,
)
from residuum.tensor_files import opened_safetensors

Target = Literal["onnx", "openvino", "torch"]
Number = Literal["fp32", "int8"]
TARGETS: tuple[Target, ...] = get_args(Target)
NUMBERS: tuple[Number, ...] = get_args(Number)
FILES: Mapping[Target, str] = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
BESIDE: Mapping[Target, tuple[str, ...]] = {"onnx": (), "openvino": ("model.bin",), "torch": ()}
"""What else holds a part of the model."""
HEAD = "head.safetensors"
IMAGES, LOGITS, FEATURES = "images", "logits", "features"
"""Of a graph: its input, its output, and the output that is there where a file `HEAD` is."""


@dataclass(frozen=True)
class Exported:
    """What a `Classifier` is, with a file for an engine in the place of the network.

    file: takes normalised images (N, C, S, S) float32 as "images", gives "logits" (N, K) float32; the temperature is
    not in it. head: the file with the weights of the last layer, where the logits are that layer of the mean over
    positions of "features" (N, F, h, w), which is then an output, too. checks: what was measured of it when it was
    exported.
    """

    file: Path
    target: Target
    number: Number
    architecture: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    multi_label: bool
    temperature: float
    provenance: Mapping[str, Any]
    checks: Mapping[str, Any]
    model_args: Mapping[str, Any] = field(default_factory=dict)
    head: Path | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        return self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size

    def tempered(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the engine gives, (N, K), divided by the temperature."""
        return logits / np.float32(self.temperature)


def export_folder(path: Path) -> Path | None:
    """The folder of an exported model, named by itself or by the file for the engine; None for anything else.

    Raises UserError for such a file without its folder.
    """
    path = model_folder(path) if is_on_hub(path) else path
    folder = path.parent if path.name in FILES.values() else path
    if is_export(folder):
        return folder
    if not (folder / CONFIG).is_file():
        _refuse_lone(path)
    return None


def _refuse_lone(path: Path) -> None:
    names = [name for name in FILES.values() if name.endswith(path.suffix)]
    if path.suffix and names and path.is_file():
        raise UserError(
            f"{path} is a part of an export: it needs the {CONFIG} that it was exported with beside it, and to be "
            f"called {names[0]}; copy the whole folder, or export the run again"
        )


def read_exported(folder: Path) -> Exported:
    """The exported model in a folder. Raises UserError for what is missing, damaged or of a later version."""
    where = folder / CONFIG
    config = read_config(where)
    section = config[SECTION]
    found = section[EXPORT] if isinstance(section[EXPORT], dict) else {}
    target, number = found.get("to"), found.get("number")
    if target not in TARGETS or number not in NUMBERS:
        what = printable(f"{target} {number}", 40)
        raise UserError(f"{where} says that {what} was exported, which is unknown here; export the run again")
    for name in (FILES[target], *BESIDE[target]):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; copy the folder again, or export the run again")
    checks, model_args = found.get("checks", {}), section.get("model_args", {})
    return Exported(
        file=folder / FILES[target],
        target=target,
        number=number,
        architecture=str(section.get("architecture", config["architecture"])),
        classes=classes_of(config, where),
        preprocessing=preprocessing_of(config, folder),
        multi_label=section.get("multi_label", False),
        temperature=float(section.get("temperature", 1.0)),
        provenance=section.get("provenance", {}),
        checks=checks if isinstance(checks, dict) else {},
        model_args=model_args if isinstance(model_args, dict) else {},
        head=folder / HEAD if (folder / HEAD).is_file() else None,
    )


def read_head(exported: Exported) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The last layer's weight (K, F) and bias (K,), of which with "features" come class activation maps.

    None for a network that has none. Raises UserError for a damaged file, or one of another number of classes.
    """
    if exported.head is None:
        return None
    with opened_safetensors(exported.head, "numpy") as file:
        found = {name: file.get_tensor(name) for name in ("weight", "bias") if name in file.keys()}  # noqa: SIM118
    weight, bias = found.get("weight", np.zeros(0)), found.get("bias", np.zeros(0))
    classes = len(exported.classes)
    kinds = {weight.dtype.kind, bias.dtype.kind}
    if weight.shape[:1] != (classes,) or weight.ndim != 2 or bias.shape != (classes,) or kinds != {"f"}:
        raise UserError(f"{exported.head} is not the last layer of {classes} classes; export the run again")
    return weight.astype(np.float32), bias.astype(np.float32)
