"""A network as an ONNX graph: what its nodes are called, what it gives, and what it says of itself."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from residuum.inference.exported import FEATURES, IMAGES, LOGITS
from residuum.inference.exported_program import BATCH, cannot_export, silenced

OPSET = 20
"""Of the operators, from December 2023: ONNX Runtime since 1.17, OpenVINO since 2024.0 and NNCF read it."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHT = ".weight"


class Head(NamedTuple):
    """The last layer: weight (K, F) and bias (K,), float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def onnx_graph(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Any, Head | None]:
    """The network, in evaluation mode and on the CPU, as an `onnx.ModelProto` for any number of images.

    Normalisations are folded into the convolutions before them. Input "images", output "logits"; where the logits are
    a linear layer of the mean over positions, also "features" (N, F, h, w), of which that is the mean, and the layer
    is returned, too. Nodes are called after the layers that they compute: "layer1.0.conv1/Conv". Raises UserError for
    a network that cannot be exported.
    """
    import onnx

    try:
        with torch.no_grad(), silenced():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, *input_shape),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[LOGITS],
                dynamic_shapes=({0: BATCH},),
            )
    except Exception as error:
        raise cannot_export(error) from error
    assert program is not None
    model = program.model_proto
    _name_nodes(model.graph)
    head = _add_features(model)
    _forget(model)
    onnx.checker.check_model(model, full_check=True)
    return model, head


def _name_nodes(graph: Any) -> None:
    """Each node after its layer and operator; a layer's second node of a kind is numbered."""
    weights = Counter(name for node in graph.node for name in node.input)
    seen: Counter[str] = Counter()
    for node in graph.node:
        name = "/".join(filter(None, (_layer(node, weights), node.op_type)))
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _layer(node: Any, uses: Mapping[str, int]) -> str:
    """What has the weights that the node uses; else the innermost module that it is part of."""
    own = next((name for name in node.input if name.endswith(_WEIGHT) and uses[name] == 1), None)
    if own is not None and node.op_type in ("Conv", "Gemm", "MatMul"):  # a folded one is named after the normalisation
        return own.removesuffix(_WEIGHT)
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    modules = [part.strip(" '\"") for part in scopes.strip("[]").split(",")][:-1]
    return modules[-1] if modules and modules[-1][:1] != "_" else ""  # some stand in for none


def _add_features(model: Any) -> Head | None:
    """Make what the head averages over positions an output, where the logits are a linear layer of that mean."""
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    layer = made_by[LOGITS]
    mean = _through(layer, ("Reshape", "Flatten", "Squeeze", "Identity"), made_by)
    known = {value.name: value for value in graph.value_info}
    if layer.op_type != "Gemm" or mean is None or not _is_mean(mean, graph) or mean.input[0] not in known:
        return None
    head, features = _head(layer, graph), known[mean.input[0]]
    sides = [side.dim_value for side in features.type.tensor_type.shape.dim]
    if head is None or len(sides) != 4 or sides[1] != head.weight.shape[1] or sides[2] * sides[3] == 1:
        return None
    _rename(graph.node, features.name, FEATURES)
    graph.output.add().CopyFrom(features)
    graph.output[-1].name = FEATURES
    graph.value_info.remove(features)
    return head


def _through(node: Any, kinds: tuple[str, ...], made_by: Mapping[str, Any]) -> Any:
    """The first node before this one that is of none of these kinds; None for the graph's input."""
    before = made_by.get(node.input[0])
    while before is not None and before.op_type in kinds:
        before = made_by.get(before.input[0])
    return before


def _is_mean(node: Any, graph: Any) -> bool:
    """Whether it averages over height and width of (N, C, H, W)."""
    if node.op_type == "GlobalAveragePool":
        return True
    axes = _constant(node.input[1], graph) if node.op_type == "ReduceMean" and len(node.input) > 1 else None
    return axes is not None and {int(axis) % 4 for axis in axes.flat} == {2, 3}


def _head(layer: Any, graph: Any) -> Head | None:
    options = {option.name: option.f or option.i for option in layer.attribute}
    weight = _constant(layer.input[1], graph)
    if weight is None or options.get("alpha", 1) != 1 or options.get("beta", 1) != 1 or options.get("transA", 0):
        return None
    weight = weight if options.get("transB", 0) else weight.T
    bias = _constant(layer.input[2], graph) if len(layer.input) > 2 else np.zeros(len(weight), np.float32)
    return None if bias is None else Head(np.ascontiguousarray(weight), bias)


def _constant(name: str, graph: Any) -> NDArray[Any] | None:
    from onnx.numpy_helper import to_array

    return next((to_array(one) for one in graph.initializer if one.name == name), None)


def _rename(nodes: Iterable[Any], old: str, new: str) -> None:
    for node in nodes:
        for ends in (node.input, node.output):
            for place, name in enumerate(ends):
                if name == old:
                    ends[place] = new


def _forget(model: Any) -> None:
    """Leave out what the exporter writes of the code that the network came from: folders, lines, its own rules."""
    del model.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    del model.graph.metadata_props[:]


def describe_in(model: Any, config: Mapping[str, Any]) -> None:
    """Write the facts of config.json into the model itself, one text each: what is no text as JSON."""
    for key, value in config.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
