"""A network's images per second by every engine, in float32, bfloat16 and 8-bit integers, beside PyTorch and timm.

    python benchmarks/engines.py -o benchmarks/results/engines.json

ResNet-50 at 224 pixels, one and 32 images at a time, each arm in a process of its own, on all cores. Weights are as
initialised, and ranges for 8 bits from noise: neither changes what is computed. Arms that the machine lacks are left
out, and named.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from measuring import Arm, Figures, Record, add_common_options, medians, printed_json, speeds

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.evaluation.evaluate import predictor
from residuum.hardware import autocast, choose_precision
from residuum.inference.bench import images_per_second, timed
from residuum.inference.engines import import_quietly, open_engine
from residuum.inference.export import Int8, export
from residuum.inference.exported import read_exported
from residuum.models.catalogue import create_model
from residuum.weights import Classifier

Work = Callable[[], object]
BASE = "PyTorch eager, fp32"
OWN = "residuum eager, fp32"
GOALS = {1: 5.0, 32: 8.0}
"""How many times as fast as eager PyTorch 8-bit integers are to be, by the images at a time."""
BATCHES = tuple(GOALS)
CLASSES = 1000
NOISE = 64  # images


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser)
    parser.add_argument("-m", "--model", default="resnet50_v1_5", help="the network, which timm has under --timm")
    parser.add_argument("--timm", default="resnet50", help="the same network's name in timm")
    parser.add_argument("-s", "--size", type=int, default=224, help="pixels of the images")
    parser.add_argument("--seconds", type=float, default=5.0, help="that an arm is measured for in a round")
    parser.add_argument("--arm", nargs=3, help=argparse.SUPPRESS)  # name, batch, folder: in a process of its own
    options = parser.parse_args()
    if options.arm:
        name, batch, folder = options.arm
        print(json.dumps(measured(WORKS[name](options, int(batch), Path(folder)), int(batch), options.seconds)))
        return
    del options.arm
    record = Record(options)
    with tempfile.TemporaryDirectory() as folder:
        write_exports(made(options.model, options.size), Path(folder))
        record.run(arms(options, folder))
    record.conclude(**findings(record))


def arms(options: argparse.Namespace, folder: str) -> dict[str, Arm]:
    """By "name, batch N": what measures it in a process of its own."""
    settings = ["-m", options.model, "--timm", options.timm, "-s", options.size, "--seconds", options.seconds]
    command = [sys.executable, __file__, *map(str, settings)]
    names = [name for name in WORKS if is_here(name)]
    return {
        arm_of(name, batch): partial(printed_json, [*command, "--arm", name, str(batch), folder])
        for batch in BATCHES
        for name in names
    }


def arm_of(name: str, batch: int) -> str:
    """What an arm is called in the record."""
    return f"{name}, batch {batch}"


def is_here(name: str) -> bool:
    """Whether the machine has what an arm needs; says what it lacks."""
    if "bf16" in name and choose_precision("auto", torch.device("cpu")) is not torch.bfloat16:
        print(f"left out: {name}; the processor has no bfloat16", file=sys.stderr)
        return False
    package = {"timm": "timm", "ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}.get(name.partition(",")[0])
    if package is not None and not find_spec(package):
        print(f"left out: {name}; {package} is not installed", file=sys.stderr)
        return False
    return True


def findings(record: Record) -> Figures:
    """Medians, how many times as fast as eager PyTorch each is, round by round, and whether the goals are met.

    Eager as a script would, which the goals are of, and as residuum itself computes.
    """
    ratios, to_own, goals = ({}, {}, {})
    for batch, goal in GOALS.items():
        ending = f", batch {batch}"
        rounds = [{arm: one for arm, one in figures.items() if arm.endswith(ending)} for figures in record.rounds]
        ratios |= speeds(rounds, arm_of(BASE, batch), "images_per_second")
        to_own |= speeds(rounds, arm_of(OWN, batch), "images_per_second")
        best = max((arm for arm in rounds[0] if "int8" in arm), key=lambda arm: ratios[arm]["median"])
        found = ratios[best]["median"]
        goals[f"batch {batch}"] = {
            "goal": goal,
            "best": best,
            "best_int8": found,
            "best_int8_to_residuums_eager": to_own[best]["median"],
            "met": found >= goal,
        }
    return {
        "images_per_second": medians(record.rounds, "images_per_second"),
        "times_as_fast_as_eager": ratios,
        "times_as_fast_as_residuums_eager": to_own,
        "goals": goals,
    }


def measured(work: Work, batch: int, seconds: float) -> Figures:
    """The rate, as `residuum bench` has it, over as many calls as take `seconds`; three to warm up."""
    for _ in range(3):
        work()
    calls = timed(work, seconds)
    return {
        "images_per_second": images_per_second(calls, batch),
        "seconds_of_a_batch": statistics.median(calls),
        "calls": len(calls),
    }


def made(model: str, size: int) -> Classifier:
    """A network with the weights that it begins with."""
    torch.manual_seed(0)
    classes = tuple(map(str, range(CLASSES)))
    return Classifier(create_model(model, num_classes=CLASSES).eval(), model, classes, Preprocessing(3, size))


def write_exports(classifier: Classifier, folder: Path) -> None:
    """ONNX and OpenVINO, in float32 and in 8 bits."""
    size, random = classifier.preprocessing.size, np.random.default_rng(0)
    pixels = random.integers(0, 256, (NOISE, size, size, 3), dtype=np.uint8)
    split = ArraySplit(pixels, random.integers(0, CLASSES, NOISE), NumberedNames("noise", NOISE))
    noise = DataSet("noise", classifier.classes, {"train": split, "test": split}, multi_label=False)
    for to in ("onnx", "openvino"):
        export(classifier, folder / f"{to}-fp32", to, noise)
        export(classifier, folder / f"{to}-int8", to, noise, Int8(noise, NOISE, max_drop=100.0))


def images(options: argparse.Namespace, batch: int) -> np.ndarray:
    """Noise, normalised: (batch, 3, size, size) float32."""
    return np.random.default_rng(1).standard_normal((batch, 3, options.size, options.size)).astype(np.float32)


def by_pytorch(
    options: argparse.Namespace, batch: int, _: Path, dtype: torch.dtype = torch.float32, compiled: bool = False
) -> Work:
    """As a script would: the network in evaluation mode, no gradients."""
    return called(create_model(options.model, num_classes=CLASSES), images(options, batch), dtype, compiled)


def by_residuum(options: argparse.Namespace, batch: int, _: Path) -> Work:
    """As a run predicts, the eager of `residuum bench`: channels last, and memory that was freed is kept."""
    predict = predictor(made(options.model, options.size).network, torch.device("cpu"), torch.float32)
    return partial(predict, torch.from_numpy(images(options, batch)))


def by_timm(options: argparse.Namespace, batch: int, _: Path) -> Work:
    """As `by_pytorch`, the network built by timm."""
    import timm

    return called(timm.create_model(options.timm, num_classes=CLASSES), images(options, batch), torch.float32, False)


def called(network: torch.nn.Module, batch: np.ndarray, dtype: torch.dtype, compiled: bool) -> Work:
    """One forward pass of the batch."""
    run = torch.compile(network.eval()) if compiled else network.eval()
    tensor = torch.from_numpy(batch)

    @torch.inference_mode()
    def work() -> object:
        with autocast(torch.device("cpu"), dtype):
            return run(tensor)

    return work


def by_engine(options: argparse.Namespace, batch: int, folder: Path, name: str, export_of: str) -> Work:
    """As residuum predicts, evaluates and serves."""
    return partial(open_engine(read_exported(folder / export_of), name), images(options, batch))


def by_openvino_bf16(options: argparse.Namespace, batch: int, folder: Path) -> Work:
    """Not what residuum offers, whose float32 is float32: what OpenVINO does with it unless told otherwise."""
    core = import_quietly("openvino", "this benchmark").Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    model = core.compile_model(folder / "openvino-fp32" / "model.xml", "CPU", settings)
    return partial(model, {"images": images(options, batch)})


WORKS: Mapping[str, Callable[[argparse.Namespace, int, Path], Work]] = {
    BASE: by_pytorch,
    OWN: by_residuum,
    "PyTorch eager, bf16": partial(by_pytorch, dtype=torch.bfloat16),
    "PyTorch compiled, fp32": partial(by_pytorch, compiled=True),
    "PyTorch compiled, bf16": partial(by_pytorch, dtype=torch.bfloat16, compiled=True),
    "timm, eager, fp32": by_timm,
    "ONNX Runtime, fp32": partial(by_engine, name="onnxruntime", export_of="onnx-fp32"),
    "ONNX Runtime, int8": partial(by_engine, name="onnxruntime", export_of="onnx-int8"),
    "OpenVINO, fp32": partial(by_engine, name="openvino", export_of="openvino-fp32"),
    "OpenVINO, bf16": by_openvino_bf16,
    "OpenVINO, int8": partial(by_engine, name="openvino", export_of="openvino-int8"),
    "OpenVINO, int8 from ONNX": partial(by_engine, name="openvino", export_of="onnx-int8"),
}


if __name__ == "__main__":
    main()
