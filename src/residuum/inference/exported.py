"""An exported model: a folder with a file for an engine, and beside it all that its use needs. Read without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, printable
from residuum.model_config import CONFIG, SECTION, classes_of, preprocessing_of, read_config

Target = Literal["onnx", "openvino", "torch"]
Number = Literal["fp32", "int8"]
TARGETS: tuple[Target, ...] = get_args(Target)
NUMBERS: tuple[Number, ...] = get_args(Number)
FILES: Mapping[Target, str] = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
EXPORT = "export"
"""Of the section of config.json: what was exported, and what was checked of it."""


@dataclass(frozen=True)
class Exported:
    """What a `Classifier` is, with a file for an engine in the place of the network.

    file: takes normalised images (N, C, S, S) float32 as "images", gives "logits" (N, K) float32; the temperature is
    not in it. checks: what was measured of it when it was exported.
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


def export_folder(path: Path) -> Path | None:
    """The folder of an exported model, named by itself or by the file for the engine; None for anything else."""
    folder = path.parent if path.name in FILES.values() else path
    if not (folder / CONFIG).is_file():
        return None
    return folder if EXPORT in read_config(folder / CONFIG).get(SECTION, {}) else None


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
    file = folder / FILES[target]
    if not file.is_file():
        raise UserError(f"{file} is missing; copy the folder again, or export the run again")
    return Exported(
        file=file,
        target=target,
        number=number,
        architecture=str(section.get("architecture", config["architecture"])),
        classes=classes_of(config, where),
        preprocessing=preprocessing_of(config, folder),
        multi_label=section.get("multi_label", False),
        temperature=float(section.get("temperature", 1.0)),
        provenance=section.get("provenance", {}),
        checks=found.get("checks", {}),
    )
