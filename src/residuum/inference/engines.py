"""What computes an exported model: OpenVINO, ONNX Runtime, or PyTorch; each imported when it is asked for."""

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from residuum.errors import UserError, counted, missing_extra, printable, tells_of_no_memory, torch_needed, unknown_name
from residuum.inference.exported import FEATURES, IMAGES, LOGITS, Exported, Target
from residuum.inference.openvino_core import openvino_core
from residuum.processor import int8_instructions, own_cores

Name = Literal["openvino", "onnxruntime", "torch"]
ENGINES: tuple[Name, ...] = get_args(Name)
RUN_BY: Mapping[Target, tuple[Name, ...]] = {
    "onnx": ("openvino", "onnxruntime"),
    "openvino": ("openvino",),
    "torch": ("torch",),
}
"""What can run an export, the faster first."""

Images = NDArray[np.float32]  # (N, C, S, S)
Logits = NDArray[np.float32]  # (N, K)
Features = NDArray[np.float32]  # (N, F, h, w)
Run = Callable[[Images], Logits]
_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """words: what computes; called with normalised images (N, C, S, S) float32 it gives the logits.

    Threads may call it at once. features: gives the logits and the "features" (N, F, h, w), where the export has them;
    its first call may take as long as opening.
    """

    words: str
    run: Run
    features: Callable[[Images], tuple[Logits, Features]] | None = None

    def __call__(self, images: Images) -> Logits:
        return self.run(images)


def open_engine(exported: Exported, name: str = "auto") -> Engine:
    """The engine called `name` with the exported file, on the cores there are; "auto": the fastest of those installed.

    Raises UserError for a name that there is not or that does not run such a file, for one that is not installed, and
    for a file that is damaged or not what its folder says; the engine raises it where it cannot compute.
    """
    chosen = _chosen(exported, name)
    with _in_one_line(f"{exported.file} cannot be opened by {chosen}"):
        engine = _OPEN[chosen](exported)
    told = _in_one_line(f"{exported.file} cannot be computed by {chosen}")
    return Engine(engine.words, told(engine.run), None if engine.features is None else told(engine.features))


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Whatever is raised as a UserError, but for want of memory: each engine has its own, without a common base."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if tells_of_no_memory(error):
            raise
        reason = printable(" ".join(str(error).split()))
        raise UserError(f"{what} ({reason}); copy it again, or export the run again") from None


def refuse_choice(export: str, device: str, precision: str) -> None:
    """Raise UserError for a device or a precision, which are PyTorch's, of what is computed otherwise."""
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device} is for runs: {export} is an export, computed on the CPU; leave it out")
    if precision not in ("auto", "fp32"):
        raise UserError(f"--precision {precision} is for runs: {export} is an export, in its own number; leave it out")


def refuse_engine(run: object, engine: str) -> None:
    """Raise UserError for an engine, which is for exports, of a run."""
    if engine != "auto":
        raise UserError(f"--engine {engine} is for exports, and {run} is none; leave it out, or export the run")


def engines_at_hand(exported: Exported) -> list[Name]:
    """The installed engines that run the export, the fastest first. Raises UserError where there is none."""
    found = [name for name in _in_order(exported) if _is_there(name)]
    if not found:
        package = RUN_BY[exported.target][-1]
        raise missing_extra(package, "export", f"an export to {exported.target}")
    return found


def _chosen(exported: Exported, name: str) -> Name:
    if name == "auto":
        return engines_at_hand(exported)[0]
    if name not in ENGINES:
        raise unknown_name("engine", name, ("auto", *ENGINES))
    able = RUN_BY[exported.target]
    if name not in able:
        raise UserError(
            f"{name} does not run an export to {exported.target}; that is done by {' or '.join(able)}, or export "
            "the run again with another --to"
        )
    if not _is_there(name):
        raise missing_extra(name, "export", f"the engine {name}")
    return next(one for one in able if one == name)


def _is_there(name: str) -> bool:
    return name == "torch" or find_spec(name) is not None  # opening says what to do without PyTorch


def _in_order(exported: Exported) -> list[Name]:
    """OpenVINO is made for x86 processors and the faster there; on others ONNX Runtime has the better kernels."""
    able = RUN_BY[exported.target]
    return [*able] if platform.machine().lower() in ("x86_64", "amd64") else [*able[::-1]]


def _words(library: str, version: str, number: str) -> str:
    by = f" by {int8_instructions()}" if number == "int8" and int8_instructions() else ""
    return f"{library} {version.partition('+')[0].partition('-')[0]}, {number}{by}, {counted(own_cores(), 'thread')}"


def _check_shapes(exported: Exported, images: _Shape, logits: _Shape) -> None:
    """Raise UserError where the graph is not that of its folder. Shapes are without the batch."""
    classes = len(exported.classes)
    if images != exported.input_shape or logits != (classes,):
        got = f"{'x'.join(map(str, images))} to {'x'.join(map(str, logits))}"
        wanted = f"{'x'.join(map(str, exported.input_shape))} to {classes}"
        raise UserError(f"{exported.file} maps {got}, its config.json says {wanted}; export the run again")


def _by_onnxruntime(exported: Exported) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = own_cores()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(exported.file, options, providers=["CPUExecutionProvider"])
    inputs, outputs = ({one.name: one.shape for one in ends} for ends in (session.get_inputs(), session.get_outputs()))
    _check_shapes(exported, tuple(inputs[IMAGES][1:]), tuple(outputs[LOGITS][1:]))

    def run(images: Images) -> Logits:
        (logits,) = session.run([LOGITS], {IMAGES: images})
        return logits

    def features(images: Images) -> tuple[Logits, Features]:
        logits, found = session.run([LOGITS, FEATURES], {IMAGES: images})
        return logits, found

    words = _words("ONNX Runtime", onnxruntime.__version__, exported.number)
    return Engine(words, run, features if FEATURES in outputs else None)


def _by_openvino(exported: Exported) -> Engine:
    openvino = import_quietly("openvino", "the engine openvino")
    core = openvino_core(openvino)
    model = core.read_model(exported.file)
    shapes = (model.input(IMAGES).get_partial_shape(), model.output(LOGITS).get_partial_shape())
    _check_shapes(exported, *(tuple(side.get_length() for side in list(shape)[1:]) for shape in shapes))
    has_features = any(FEATURES in output.get_names() for output in model.outputs)
    run = _compiled(core, model, exported, [LOGITS])
    late: list[Callable[[Images], list[NDArray[np.float32]]]] = []

    def logits(images: Images) -> Logits:
        return run(images)[0]

    def features(images: Images) -> tuple[Logits, Features]:
        if not late:
            late.append(_compiled(core, core.read_model(exported.file), exported, [LOGITS, FEATURES]))
        both = late[0](images)
        return both[0], both[1]

    words = _words("OpenVINO", openvino.__version__, exported.number)
    return Engine(words, logits, features if has_features else None)


def _compiled(
    core: Any, model: Any, exported: Exported, wanted: Sequence[str]
) -> Callable[[Images], list[NDArray[np.float32]]]:
    """The model for some of its outputs; changes it: what the others alone need is not computed."""
    for result in model.get_results():
        if not result.output(0).get_names() & {*wanted}:
            model.remove_result(result)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": own_cores()}
    if exported.number == "fp32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"  # else bf16 where the processor has it
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    lock = Lock()  # a request holds one batch

    def run(images: Images) -> list[NDArray[np.float32]]:
        with lock:
            request.infer({IMAGES: np.ascontiguousarray(images)}, share_inputs=True)
            return [request.get_tensor(name).data.copy() for name in wanted]

    return run


def _by_torch(exported: Exported) -> Engine:
    with torch_needed(f"{exported.file}, exported to torch,"):
        import torch

    from residuum.inference.exported_program import open_program

    program = open_program(exported.file)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    ends = (program.graph_signature.user_inputs, program.graph_signature.user_outputs)
    _check_shapes(exported, *(tuple(values[str(name)].shape[1:]) for (name,) in ends))
    module = program.module()

    def run(images: Images) -> Logits:
        with torch.inference_mode():
            found: Logits = module(torch.from_numpy(images)).numpy()
            return found

    return Engine(_words("PyTorch", torch.__version__, exported.number), run)


_OPEN: Mapping[Name, Callable[[Exported], Engine]] = {
    "openvino": _by_openvino,
    "onnxruntime": _by_onnxruntime,
    "torch": _by_torch,
}


def import_quietly(name: Literal["openvino", "nncf"], purpose: str) -> Any:
    """The library, imported without what it does then by itself: tell its makers of its use over the network.

    It asks nobody before. Without the package that sends it goes on all the same. Raises UserError, which names the
    purpose, where the library is not installed.
    """
    if not find_spec(name):
        raise missing_extra(name, "export", purpose)
    with _absent("openvino_telemetry"):
        return import_module(name)


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """While the block runs, importing the package fails as if it were not installed."""
    there = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if there is not None:
            sys.modules[package] = there
