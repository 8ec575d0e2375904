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
from residuum.data.splits import Split
from residuum.errors import UserError, counted, missing_extra
from residuum.evaluation.views import Protocol
from residuum.files import whole_folder, write_json
from residuum.inference.calibrate import is_divided_otherwise
from residuum.inference.engines import RUN_BY, import_quietly
from residuum.inference.exported import FILES, HEAD, Exported, Target, read_exported
from residuum.inference.exported_program import save_program
from residuum.inference.onnx_graph import describe_in, onnx_graph
from residuum.inference.openvino_core import openvino_core
from residuum.inference.parity import check, evenly, real_images
from residuum.inference.quantise import check_layers, quantised
from residuum.model_config import (
    CONFIG,
    EXPORT,
    EXPORTED_FILES,
    MEAN_IMAGE,
    SECTION,
    is_export,
    public_name,
    refuse_others,
    without_places,
    write_mean_image,
)
from residuum.weights import Classifier, config_of


@dataclass(frozen=True)
class Int8:
    """How to quantise: the images whose values give the ranges, the layers that stay in float, what may be lost.

    images: of which `count` are drawn evenly, from the training images where there are any; kept: names of layers,
    "layer4" for all of a stage; max_drop: of the accuracy, in points.
    """

    images: DataSet
    count: int = 300
    kept: tuple[str, ...] = ()
    max_drop: float = 0.5

    def source(self) -> tuple[str, Split]:
        """The split whose images give the ranges, with its name: what a model is tested on is better not looked at."""
        return self.images.held_out("train" if "train" in self.images.splits else None)


@dataclass(frozen=True)
class _Ranges:
    """The images that give the ranges, (1, C, S, S) float32 each, none without int8; the layers that stay in float."""

    images: Sequence[NDArray[np.float32]] = ()
    kept: tuple[str, ...] = ()


def export(classifier: Classifier, out: Path, to: Target, dataset: DataSet, int8: Int8 | None = None) -> Exported:
    """Write the model to the folder `out` for engines of the kind `to`, in int8 or in float32, and check it.

    dataset: the images that it is checked on, opened with the model's classes; with int8 they need their labels. An
    export that is there already is replaced. The network is left on the CPU, in evaluation mode. Where data and weights
    lie on the disk is left out: of their paths the names are kept. Raises UserError for what `refuse_request` refuses,
    for int8 that would be judged on images that training or its ranges have seen, for a network that cannot be
    exported, and for an export that does not give what the network gives: `residuum.inference.parity`.
    """
    refuse_request(out, to, int8 is not None)
    _require_packages(to, int8 is not None)
    doubts = _doubts(classifier, dataset, int8)
    public = replace(classifier, provenance=without_places(classifier.provenance))
    network = replace(public, network=classifier.network.cpu().float().eval())
    ranges, facts = _ranges(classifier, int8) if int8 is not None else (_Ranges(), {})
    config = config_of(public)
    config[SECTION][EXPORT] = {"to": to, "number": "fp32" if int8 is None else "int8", **facts}
    with whole_folder(out) as folder:
        write_mean_image(folder, classifier.preprocessing)
        _write_model(folder, network, to, config, ranges)
        write_json(folder / CONFIG, config)
        found = read_exported(folder)
        checks = check(network, found, dataset, int8.max_drop if int8 is not None else 0.0)
        config[SECTION][EXPORT]["checks"] = {**checks.record(), "notes": [*doubts, *_left_out(facts)]}
        write_json(folder / CONFIG, config)
    return read_exported(out)


def refuse_request(out: Path, to: Target, int8: bool) -> None:
    """Raise UserError where an export would replace anything but another export, and for int8 where there is none."""
    if int8 and to == "torch":
        raise UserError("int8 is for onnx and openvino: PyTorch has no form of it that lasts; take one of those")
    refuse_others(out, (CONFIG, MEAN_IMAGE, *EXPORTED_FILES), "an export", "name another folder with -o DIR")
    if out.is_dir() and any(out.iterdir()) and not is_export(out):
        raise UserError(f"{out} is a folder of something else, which an export would replace; name another with -o DIR")


def _doubts(classifier: Classifier, dataset: DataSet, int8: Int8 | None) -> list[str]:
    """What makes the images that it is checked on less than held out; refused where accuracy is judged by them."""
    split = dataset.held_out()[0]
    if int8 is not None and int8.source()[0] == split and _are_same(int8.images, dataset):
        raise UserError(
            f"int8 would be judged on the images of {split!r} that its ranges come from; name labelled images that are "
            "held out with --data, or others for the ranges with --calibrate"
        )
    if not is_divided_otherwise(classifier, dataset):
        return []
    name = public_name(dataset.spec)
    doubt = f"{name} changed since training or is divided otherwise: the model may have seen the images of {split!r}"
    if int8 is not None:
        raise UserError(
            f"{doubt}, on which int8 would be judged; divide it as it was with --val-fraction and --split-seed, or "
            "name held-out images with --data"
        )
    return [doubt]


def _require_packages(to: Target, int8: bool) -> None:
    """Before any work. To check what was written one engine is enough."""
    needed = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino"), "torch": ()}
    engines = RUN_BY[to] if not any(map(find_spec, RUN_BY[to])) else ()
    for package in (*needed[to], *(("nncf",) if int8 else ()), *engines):
        if not find_spec(package):
            raise missing_extra(package, "export", "int8" if package == "nncf" else f"an export to {to}")


def _are_same(one: DataSet, other: DataSet) -> bool:
    return one is other or one.fingerprint() == other.fingerprint()


def _ranges(classifier: Classifier, int8: Int8) -> tuple[_Ranges, dict[str, Any]]:
    """The images that give the ranges, and what config.json tells of them."""
    split, images = int8.source()
    shown = real_images(images, classifier.preprocessing, int8.count)
    bad = len(evenly(len(images), int8.count)) - len(shown)
    told = {"data": public_name(int8.images.spec), "split": split, "images": len(shown), "unreadable": bad}
    return _Ranges([*shown[:, None]], int8.kept), {"ranges_from": told, "float_layers": [*int8.kept]}


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    bad = facts.get("ranges_from", {}).get("unreadable", 0)
    return [f"{counted(bad, 'image')} for the ranges could not be read and gave none"] if bad else []


def _write_model(folder: Path, classifier: Classifier, to: Target, config: Mapping[str, Any], ranges: _Ranges) -> None:
    handling = classifier.preprocessing
    shape, file = (handling.channels, handling.size, handling.size), folder / FILES[to]
    if to == "torch":
        save_program(classifier.network, shape, file)
        return
    graph, head = onnx_graph(classifier.network, shape)
    if head is not None:
        (folder / HEAD).write_bytes(save(head._asdict()))
    check_layers(ranges.kept, [node.name for node in graph.graph.node])
    write = _write_onnx if to == "onnx" else _write_openvino
    write(file, graph, {**_told(config), "protocol": Protocol().name(handling)}, ranges)


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of itself, which may be copied out of its folder; what it is checked to be, it cannot."""
    section = config[SECTION]
    return {
        "author": "residuum",
        "architecture": section["architecture"],
        "classes": config["label_names"],
        "preprocessing": config["pretrained_cfg"],
        **{key: section[key] for key in ("multi_label", "temperature", "provenance", EXPORT)},
    }


def _write_onnx(file: Path, graph: Any, told: Mapping[str, Any], ranges: _Ranges) -> None:
    model = quantised(graph, ranges.images, ranges.kept) if ranges.images else graph
    describe_in(model, told)
    file.write_bytes(model.SerializeToString())


def _write_openvino(file: Path, graph: Any, told: Mapping[str, Any], ranges: _Ranges) -> None:
    openvino = import_quietly("openvino", "an export to openvino")
    model = openvino_core(openvino).read_model(graph.SerializeToString())
    if ranges.images:
        model = quantised(model, ranges.images, ranges.kept)
    for key, value in told.items():
        model.set_rt_info(value if isinstance(value, str) else json.dumps(value), ["residuum", key])
    openvino.save_model(model, file, compress_to_fp16=False)
