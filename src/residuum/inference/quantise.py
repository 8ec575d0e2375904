"""Weights and activations in 8-bit integers: post-training quantisation by NNCF, ranges from images of the data."""

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residuum.errors import unknown_name
from residuum.inference.engines import import_quietly
from residuum.inference.exported import IMAGES
from residuum.inference.exported_program import silenced


def quantised(model: Any, images: Sequence[NDArray[np.float32]], kept: Sequence[str]) -> Any:
    """The model, an ONNX or OpenVINO one, with the ranges that its values have on images, (1, C, S, S) float32 each.

    kept: layers that stay in float, with all that they are made of: "layer4" is every layer of that stage; the names
    of the model's nodes begin with their layer's. Raises UserError where NNCF is not installed.
    """
    with silenced():
        nncf = import_quietly("nncf", "int8")
    patterns = [f"{re.escape(layer)}[./].*" for layer in kept]
    scope = nncf.IgnoredScope(patterns=patterns, validate=False) if kept else None
    data = nncf.Dataset(images, lambda one: {IMAGES: one})
    with redirect_stdout(sys.stderr), silenced():  # it draws how far it is
        return nncf.quantize(model, data, subset_size=len(images), ignored_scope=scope)


def check_layers(kept: Sequence[str], nodes: Iterable[str]) -> None:
    """Raise UserError for a layer that none of the nodes is of; they are called after it: "layer1.0.conv1/Conv"."""
    paths = [node.partition("/")[0].split(".") for node in nodes if "/" in node]
    layers = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    for layer in kept:
        if layer not in layers:
            top = sorted({name.partition(".")[0] for name in layers})
            raise unknown_name("layer", layer, layers, f"the network is made of {', '.join(top)}")
