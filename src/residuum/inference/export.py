"""A model as a folder for an engine to compute: written, checked on real images, and there whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from residuum.data.sources import DataSet
from residuum.errors import UserError, missing_extra
from residuum.files import whole_folder, write_json
from residuum.inference.engines import RUN_BY, import_quietly
from residuum.inference.exported import FILES, HEAD, Exported, Target, export_folder, read_exported
from residuum.inference.exported_program import save_program
from residuum.inference.onnx_graph import describe_in, onnx_graph
from residuum.inference.parity import check, real_images
from residuum.inference.quantise import check_layers, quantised
from residuum.model_config import CONFIG, EXPORT, MEAN_IMAGE, SECTION
from residuum.weights import Classifier, config_of


@dataclass(frozen=True)
class Int8:
    """How to quantise: the images whose values give the ranges, the layers that stay in float, what may be lost.

    images: of which `count` are drawn evenly; kept: names of layers, "layer4" for all of a stage; max_drop: of the
    accuracy, in points.
    """

    images: DataSet
    count: int = 300
    kept: tuple[str, ...] = ()
    max_drop: float = 0.5


def export(classifier: Classifier, out: Path, to: Target, dataset: DataSet, int8: Int8 | None = None) -> Exported:
    """Write the model to the folder `out` for engines of the kind `to`, in int8 or in float32, and check it.

    dataset: the images that it is checked on, opened with the model's classes; with int8 they need their labels. An
    export that is there already is replaced. The network is left on the CPU, in evaluation mode. Raises UserError for
    a folder that holds anything else, a network that cannot be exported, and an export that does not give what the
    network gives: `residuum.inference.parity`.
    """
    refuse_others_folder(out)
    _require_packages(to, int8 is not None)
    if int8 is not None and to == "torch":
        raise UserError("int8 is for onnx and openvino: PyTorch has no lasting form of it; take one of those")
    network = replace(classifier, network=classifier.network.cpu().float().eval())
    number = "fp32" if int8 is None else "int8"
    config = config_of(classifier)
    config[SECTION][EXPORT] = {"to": to, "number": number}
    with whole_folder(out) as folder:
        _write_mean_image(folder, network)
        _write_model(folder, network, to, config, int8)
        write_json(folder / CONFIG, config)
        found = read_exported(folder)
        checks = check(network, found, dataset, int8.max_drop if int8 is not None else 0.0)
        config[SECTION][EXPORT] |= _facts(int8) | {"checks": checks.record()}
        write_json(folder / CONFIG, config)
    return read_exported(out)


def refuse_others_folder(out: Path) -> None:
    """Raise UserError where an export would replace anything but another export."""
    if out.is_dir() and any(out.iterdir()) and export_folder(out) != out:
        raise UserError(f"{out} is a folder of something else, which an export would replace; name another with -o DIR")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; an export is a folder of its own: name it with -o DIR")


def _require_packages(to: Target, int8: bool) -> None:
    """Before any work. To check what was written one engine is enough."""
    needed = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino"), "torch": ()}
    engines = RUN_BY[to] if not any(map(find_spec, RUN_BY[to])) else ()
    for package in (*needed[to], *(("nncf",) if int8 else ()), *engines):
        if not find_spec(package):
            raise missing_extra(package, "export", "int8" if package == "nncf" else f"an export to {to}")


def _facts(int8: Int8 | None) -> dict[str, Any]:
    if int8 is None:
        return {}
    split, images = _calibrated_on(int8)
    ranges = {"data": int8.images.spec, "split": split, "images": min(int8.count, len(images))}
    return {"ranges_from": ranges, "float_layers": [*int8.kept]}


def _calibrated_on(int8: Int8) -> tuple[str, Any]:
    """Training images, where there are any: what the model is tested on is better not looked at."""
    return int8.images.held_out("train" if "train" in int8.images.splits else None)


def _write_mean_image(folder: Path, classifier: Classifier) -> None:
    if (image := classifier.preprocessing.mean_image) is not None:
        (folder / MEAN_IMAGE).write_bytes(save({"mean_image": image}))


def _write_model(
    folder: Path, classifier: Classifier, to: Target, config: Mapping[str, Any], int8: Int8 | None
) -> None:
    handling = classifier.preprocessing
    shape, file = (handling.channels, handling.size, handling.size), folder / FILES[to]
    if to == "torch":
        save_program(classifier.network, shape, file)
        return
    graph, head = onnx_graph(classifier.network, shape)
    if head is not None:
        (folder / HEAD).write_bytes(save(head._asdict()))
    if int8 is not None:
        check_layers(int8.kept, [node.name for node in graph.graph.node])
    images = _images(classifier, int8) if int8 is not None else []
    kept = int8.kept if int8 is not None else ()
    write = _write_onnx if to == "onnx" else _write_openvino
    write(file, graph, _told(config), images, kept)


def _images(classifier: Classifier, int8: Int8) -> list[NDArray[np.float32]]:
    every = real_images(_calibrated_on(int8)[1], classifier.preprocessing, int8.count)
    return [*every[:, None]]


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of itself: it may be copied out of its folder."""
    section = config[SECTION]
    return {
        "author": "residuum",
        "architecture": section["architecture"],
        "classes": config["label_names"],
        "preprocessing": config["pretrained_cfg"],
        **{key: section[key] for key in ("multi_label", "temperature", "provenance", EXPORT)},
    }


def _write_onnx(
    file: Path, graph: Any, told: Mapping[str, Any], images: Sequence[NDArray[np.float32]], kept: Sequence[str]
) -> None:
    model = quantised(graph, images, kept) if images else graph
    describe_in(model, told)
    file.write_bytes(model.SerializeToString())


def _write_openvino(
    file: Path, graph: Any, told: Mapping[str, Any], images: Sequence[NDArray[np.float32]], kept: Sequence[str]
) -> None:
    openvino = import_quietly("openvino", "an export to openvino")
    model = openvino.Core().read_model(graph.SerializeToString())
    if images:
        model = quantised(model, images, kept)
    for key, value in told.items():
        model.set_rt_info(value if isinstance(value, str) else json.dumps(value), ["residuum", key])
    openvino.save_model(model, file, compress_to_fp16=False)
