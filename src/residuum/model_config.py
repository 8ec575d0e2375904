"""The facts that travel with a model's weights: the folder's config.json and mean image, read without PyTorch."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, printable
from residuum.files import read_json, write_json
from residuum.hub import at_commit, fetched, is_on_hub
from residuum.tensor_files import opened_safetensors, require_file

WEIGHTS, CONFIG, MEAN_IMAGE = "model.safetensors", "config.json", "preprocessing.safetensors"
PICKLED = "pytorch_model.bin"
"""Weights as `torch.save` writes them: what timm saves unless it is told otherwise."""
SECTION = "residuum"
"""Of config.json: what timm has no word for."""
EXPORT = "export"
"""Of the section: what was exported, and what was checked of it; in the folder of an exported model alone."""
EXPORTED_FILES = ("model.onnx", "model.xml", "model.bin", "model.pt2", "head.safetensors")
"""What an exported model may be made of, beside its config and mean image."""
FITTED_ON = "temperature_fitted_on"
"""Of a model's provenance: the data that its temperature was fitted on."""
VAL_FRACTION, SPLIT_SEED = "val_fraction", "split_seed"
"""Of a model's provenance: how the data of its training were divided, where they had no splits of their own."""

_REQUIRED: dict[str, type] = {"architecture": str, "num_classes": int, "pretrained_cfg": dict}
_OPTIONAL: dict[str, type] = {"model_args": dict, SECTION: dict}
_OFSECTION: dict[str, type] = {"multi_label": bool, "mean_image": bool, "provenance": dict}
_OFPROVENANCE: dict[str, type] = {FITTED_ON: dict, VAL_FRACTION: float, SPLIT_SEED: int}
_COLD, _HOT = 0.01, 100.0  # temperatures between which logits stay numbers, and in their order
_MOST_CLASSES = 2**20  # where there are no weights to tell
_FOREIGN_PLACES = ("hf:", "torchvision/", "timm/")  # that are nobody's folder


def public_name(place: str) -> str:
    """The name of data or weights without where they lie on their owner's disk; that of a public name is itself.

    A folder that is called like a built-in data set keeps the "./" by which the two are told apart.
    """
    from residuum.data.sources.builtin import BUILTIN
    from residuum.data.sources.dataset import SPLIT_NAMES

    if place in BUILTIN or place.startswith(_FOREIGN_PLACES):
        return place
    parts = Path(place).parts[-2:]
    name = "/".join(parts if parts[-1:] and parts[-1].lower() in SPLIT_NAMES else parts[-1:]) or place
    return f"./{name}" if name in BUILTIN else name


def without_places(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What may be handed to others of a model's provenance: data and weights by their public names."""
    places = {key: provenance.get(key) for key in ("data", "weights")}
    return {**provenance, **{key: public_name(place) for key, place in places.items() if isinstance(place, str)}}


def store_temperature(path: str | Path, temperature: float, fitted_on: Mapping[str, str]) -> None:
    """Write a temperature into the model at `path`, a folder as for `load`; nothing else in it changes.

    fitted_on: what the provenance will say of it, such as split and fingerprint of the data. Raises UserError when
    there is no model or its config is damaged.
    """
    where = model_folder(Path(path)) / CONFIG
    config = read_config(where)
    section = config.get(SECTION, {})
    provenance = {**section.get("provenance", {}), FITTED_ON: dict(fitted_on)}
    config[SECTION] = {**section, "temperature": temperature, "provenance": provenance}
    write_json(where, config)


def read_temperature(path: str | Path) -> tuple[float, Mapping[str, str]]:
    """The temperature of the model at `path`, and on what it was fitted: empty where it was not."""
    section = read_config(model_folder(Path(path)) / CONFIG).get(SECTION, {})
    return float(section.get("temperature", 1.0)), section.get("provenance", {}).get(FITTED_ON, {})


def model_folder(path: Path) -> Path:
    """The folder with the model: that of a run, or `path` itself; of `hf:owner/name` the one in the Hub's cache.

    Raises UserError when there is none.
    """
    if is_on_hub(path):
        return _from_hub(str(path))
    for folder in (path / "model", path):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "run.json").is_file():
        raise UserError(f"the run {path} has no model yet; finish it with: residuum train DATA --resume --out {path}")
    reason = "holds no config.json" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
    raise UserError(f"{path} {reason}; a model is a run folder, its model/ folder or one in the Hub layout")


def _from_hub(name: str) -> Path:
    folder = fetched(name, (CONFIG,))
    try:
        read_config(folder / CONFIG)  # before the weights are downloaded, which may be large
    except UserError as error:
        raise UserError(f"{name} is no model for residuum: {str(error).replace(str(folder), name)}") from None
    same = at_commit(name, folder)  # what a branch names may change meanwhile
    if is_export(folder):
        return fetched(same, (CONFIG, MEAN_IMAGE, *EXPORTED_FILES))
    folder = fetched(same, (CONFIG, MEAN_IMAGE, WEIGHTS))
    return folder if (folder / WEIGHTS).is_file() else fetched(same, (CONFIG, MEAN_IMAGE, PICKLED))


def weights_file(folder: Path) -> Path:
    """The file with the weights of a model folder: `model.safetensors`, or `pytorch_model.bin` where only that is."""
    pickled = folder / PICKLED
    return pickled if pickled.is_file() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


def trained_folder(path: Path) -> Path:
    """As `model_folder`, where there are weights to go on with. Raises UserError for an exported model, too."""
    refuse_exported(path.parent if path.is_file() else path)
    folder = model_folder(path)
    refuse_exported(folder)  # one from the Hub
    return folder


def refuse_exported(folder: Path) -> None:
    """Raise UserError where the folder is that of an exported model, which has no weights to load."""
    if is_export(folder):
        raise UserError(
            f"{folder} is an exported model, which holds no weights to load; evaluate, predict, bench, serve and "
            "describe take it; for all else name the run that it was exported from"
        )


def is_export(folder: Path) -> bool:
    """Whether an exported model lies in this very folder. Raises UserError for a damaged config."""
    where = folder / CONFIG
    return where.is_file() and EXPORT in read_config(where).get(SECTION, {})


def refuse_others(folder: Path, parts: Collection[str], what: str, otherwise: str) -> None:
    """Raise UserError where to replace the folder would delete what is none of the `parts` of `what`.

    otherwise: what to do then. Left out of account are files that systems hide in any folder.
    """
    if is_on_hub(folder):
        raise UserError(f"{folder} names a model of the Hub, and {what} is a folder; {otherwise}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, and {what} is a folder; {otherwise}")
    there = {entry.name for entry in folder.iterdir() if not _is_systems(entry)} if folder.is_dir() else set()
    if others := sorted(there - set(parts)):
        raise UserError(f"{folder} holds {printable(others[0])}, which is no part of {what}; {otherwise}")


def _is_systems(entry: Path) -> bool:
    return entry.name in (".DS_Store", ".directory") or entry.name.startswith((".residuum-", "._", ".nfs"))


def read_config(where: Path) -> dict[str, Any]:
    """A config.json, checked. Raises UserError for one that is damaged or not in the Hub layout."""
    config = read_json(where)
    if not isinstance(config, dict):
        raise UserError(f"{where} holds no JSON object; copy or save the model again")
    wrong = [key for key, kind in _REQUIRED.items() if not isinstance(config.get(key), kind)]
    wrong += [key for key, kind in _OPTIONAL.items() if not isinstance(config.get(key, kind()), kind)]
    section = config.get(SECTION)
    if isinstance(section, dict):
        wrong += [
            f"{SECTION}.{key}" for key, kind in _OFSECTION.items() if not isinstance(section.get(key, kind()), kind)
        ]
        wrong += _odd_provenance(section)
    if wrong:
        raise UserError(f"{where} is not in the Hub layout: {', '.join(wrong)} missing or of another type")
    _check_count(config["num_classes"], where)
    temperature = section.get("temperature", 1.0) if isinstance(section, dict) else 1.0
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not _COLD <= temperature <= _HOT:
        raise UserError(f"{where} has a temperature of {printable(str(temperature), 20)}; it is {_COLD} to {_HOT}")
    return config


def _odd_provenance(section: Mapping[str, Any]) -> list[str]:
    provenance = section.get("provenance", {})
    found = provenance if isinstance(provenance, dict) else {}
    return [
        f"{SECTION}.provenance.{key}"
        for key, kind in _OFPROVENANCE.items()
        if not isinstance(found.get(key, kind()), kind)
    ]


def _check_count(count: int, where: Path) -> None:
    # Each class has weights of its own, and takes memory already for its name.
    weights = weights_file(where.parent)
    most = weights.stat().st_size if weights.is_file() else _MOST_CLASSES
    if isinstance(count, bool) or not 1 <= count <= most:
        raise UserError(
            f"{where} has num_classes {printable(str(count), 20)}; {weights.name} has no weights for as many"
        )


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of the outputs of a model folder, in order. Raises UserError for a damaged config."""
    where = folder / CONFIG
    return classes_of(read_config(where), where)


def classes_of(config: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """The names of the outputs in order; "0", "1", ... where there are none. Raises UserError where some lack one."""
    count = config["num_classes"]
    names = config.get("label_names") or config["pretrained_cfg"].get("label_names") or range(count)
    if isinstance(names, Mapping):  # index -> name, in JSON with the index as text
        names = [names.get(str(index)) for index in range(count if len(names) == count else 0)]
    is_complete = isinstance(names, (list, range)) and len(names) == count
    if not is_complete or not all(isinstance(name, (str, int)) for name in names):
        raise UserError(f"{where}: label_names does not give each of the {count} outputs a name; complete it")
    return tuple(map(str, names))


def preprocessing_of(config: Mapping[str, Any], folder: Path) -> Preprocessing:
    """What the model in `folder` wants done to an image. Raises UserError for what cannot be done."""
    has_mean_image = config.get(SECTION, {}).get("mean_image", False)
    try:
        mean_image = _read_mean_image(folder) if has_mean_image else None
        return Preprocessing.from_config({**config["pretrained_cfg"], "mean_image": has_mean_image}, mean_image)
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    except (KeyError, ValueError) as error:
        reason = printable(repr(error))
        raise UserError(f"{folder / CONFIG} has no usable preprocessing ({reason}); save the model again") from None


def write_mean_image(folder: Path, preprocessing: Preprocessing) -> None:
    """Write the mean image, where there is one, into the folder of a model that is exported or not."""
    if preprocessing.mean_image is not None:
        (folder / MEAN_IMAGE).write_bytes(save({"mean_image": preprocessing.mean_image}))


def _read_mean_image(folder: Path) -> NDArray[np.float32]:
    require_file(folder / MEAN_IMAGE)
    with opened_safetensors(folder / MEAN_IMAGE, "numpy") as file:
        values = file.get_tensor("mean_image") if "mean_image" in file.keys() else np.zeros(0, np.int64)  # noqa: SIM118
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise UserError(f"{MEAN_IMAGE} holds no finite numbers; save the model again")
    return values.astype(np.float32)
