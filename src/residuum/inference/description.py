"""What is in an exported model: its graph as the engine's own library reads it, its facts, and how it was checked."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from residuum.errors import UserError, listed, missing_extra, printable
from residuum.inference.engines import import_quietly
from residuum.inference.exported import BESIDE, LOGITS, Exported, Target
from residuum.inference.openvino_core import openvino_core
from residuum.records import Cell, Table

_MIB = 2**20
_CLASSES_NAMED = 10
_UNIT = "differences in standard deviations of PyTorch's logits in float32 over the images"


@dataclass(frozen=True)
class Graph:
    """dialect: the operators' set and version; inputs, outputs: name and shape; nodes: how many of each operator."""

    dialect: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    nodes: Mapping[str, int]


def tables(exported: Exported) -> list[Table]:
    """The facts, the operators, and the checks of an export.

    Raises UserError where its library is not installed, and for a damaged file.
    """
    graph = read_graph(exported)
    nodes = sorted(graph.nodes.items(), key=lambda pair: (-pair[1], pair[0]))
    operators = Table("Operators", ("operator", "nodes"), tuple(nodes))
    return [Table("", ("fact", "value"), tuple(_facts(exported, graph))), operators, *checks_tables(exported.checks)]


def read_graph(exported: Exported) -> Graph:
    """The graph of the file. Raises UserError as `tables`."""
    try:
        return _READ[exported.target](exported)
    except UserError:
        raise
    except ImportError as error:
        raise missing_extra(error.name or exported.target, "export", f"reading {exported.file.name}") from None
    except Exception as error:  # each library has its own, without a common base
        reason = printable(" ".join(str(error).split()))
        raise UserError(f"{exported.file} is damaged ({reason}); copy it again, or export the run again") from None


def _of_onnx(exported: Exported) -> Graph:
    import onnx

    model = onnx.load(exported.file, load_external_data=False)
    onnx.checker.check_model(model)
    versions = [f"{one.domain or 'ONNX'} opset {one.version}" for one in model.opset_import]
    return Graph(
        ", ".join(versions),
        {one.name: _onnx_shape(one) for one in model.graph.input},
        {one.name: _onnx_shape(one) for one in model.graph.output},
        dict(Counter(node.op_type for node in model.graph.node)),
    )


def _onnx_shape(value: Any) -> str:
    return _shape([side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim])


def _of_openvino(exported: Exported) -> Graph:
    openvino = import_quietly("openvino", f"reading {exported.file.name}")
    model = openvino_core(openvino).read_model(exported.file)
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    sets = sorted({node.get_type_info().version_id for node in model.get_ops()}, key=lambda one: int(one[5:] or 0))
    return Graph(
        f"OpenVINO IR, operators of {listed(sets)}",
        {one.get_any_name(): _openvino_shape(one) for one in model.inputs},
        {one.get_any_name(): _openvino_shape(one) for one in model.outputs},
        dict(kinds),
    )


def _openvino_shape(port: Any) -> str:
    sides = list(port.get_partial_shape())
    return _shape(["batch" if side.is_dynamic else side.get_length() for side in sides])


def _of_torch(exported: Exported) -> Graph:
    from residuum.inference.exported_program import open_program

    program = open_program(exported.file)
    nodes, signature = {node.name: node for node in program.graph.nodes}, program.graph_signature
    return Graph(
        f"PyTorch exported program, {program.dialect or 'ATEN'}",
        {str(name): _torch_shape(nodes[str(name)]) for name in signature.user_inputs},
        dict(zip([LOGITS], (_torch_shape(nodes[str(name)]) for name in signature.user_outputs), strict=True)),
        dict(Counter(str(node.target) for node in nodes.values() if node.op == "call_function")),
    )


def _torch_shape(node: Any) -> str:
    return _shape([side if isinstance(side, int) else "batch" for side in node.meta["val"].shape])


_READ: Mapping[Target, Callable[[Exported], Graph]] = {
    "onnx": _of_onnx,
    "openvino": _of_openvino,
    "torch": _of_torch,
}


def _shape(sides: Sequence[str | int]) -> str:
    return "x".join(map(str, sides))


def _facts(exported: Exported, graph: Graph) -> Iterator[tuple[Cell, ...]]:
    handling = exported.preprocessing
    files = [exported.file, *(exported.file.with_name(name) for name in BESIDE[exported.target])]
    yield "export to", exported.target
    yield "number", exported.number
    yield "network", exported.architecture
    yield "operators", graph.dialect
    yield "input", _ends(graph.inputs)
    yield "output", _ends(graph.outputs)
    yield "file", f"{exported.file.name}, {sum(file.stat().st_size for file in files) / _MIB:.1f} MiB"
    yield "classes", f"{len(exported.classes):,}: {listed(exported.classes, _CLASSES_NAMED)}"
    yield "labels", "several an image" if exported.multi_label else "one an image"
    yield "image", f"{handling.size} pixels of {handling.resized_side}, {handling.interpolation}"
    yield "mean", "an image" if handling.mean_image is not None else _numbers(handling.mean)
    yield "deviation", _numbers(handling.std)
    yield "temperature", f"{exported.temperature:.3f}"
    for key, value in exported.provenance.items():
        yield key, _text(value)


def _ends(ends: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in ends.items())


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return listed((f"{key} {one}" for key, one in value.items()), 12)
    return printable(str(value), 200)


def checks_tables(checks: Mapping[str, Any]) -> list[Table]:
    """What was measured when it was exported: the logits beside PyTorch's and, of int8, the accuracy."""
    where = f"{checks.get('data', 'unknown data')}, {checks.get('split', 'unknown split')}"
    where += f", {checks['protocol']}" if "protocol" in checks else ""
    found = []
    if rows := _rows(checks.get("parity"), ("engine", "batch", "images", "difference", "rms", "agreement")):
        columns = ("engine", "batch", "images", "largest difference", "rms difference", "same first class [%]")
        exact = tuple((*row[:3], *(_rounded(value) for value in row[3:5]), row[5]) for row in rows)
        found.append(Table(f"Logits beside PyTorch's on {where}", columns, exact, (_UNIT, *_notes(checks))))
    if rows := _rows(checks.get("worth"), ("engine", "images", "measure", "before", "after", "drop")):
        columns = ("engine", "images", "measure", "fp32 [%]", "int8 [%]", "drop [points]")
        found.append(Table(f"Accuracy on {where}", columns, rows, tuple(_of_one_image(rows))))
    return found


def _notes(checks: Mapping[str, Any]) -> list[str]:
    """Of checks from a file, which may hold anything."""
    notes = checks.get("notes")
    return [printable(str(note), 200) for note in notes] if isinstance(notes, list) else []


def _of_one_image(rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """Few images are to be seen for what they are."""
    counts = [row[1] for row in rows if row[2] == "top-1 accuracy"]
    if counts and isinstance(counts[0], int) and counts[0] > 0:
        yield f"one image is {100 / counts[0]:.2g} points"


def _rows(records: Any, keys: Sequence[str]) -> tuple[tuple[Cell, ...], ...]:
    """Of records from a file, which may hold anything."""
    every = [one for one in records if isinstance(one, Mapping)] if isinstance(records, list) else []
    return tuple(tuple(_cell(one.get(key)) for key in keys) for one in every)


def _cell(value: Any) -> Cell:
    return value if isinstance(value, (str, int, float)) or value is None else str(value)


def _rounded(value: Cell) -> str:
    return f"{value:.2g}" if isinstance(value, (int, float)) else str(value)
