"""Seconds until an answer stands in the shell: help, importing PyTorch, the first prediction.

    python benchmarks/startup.py -o benchmarks/results/startup.json

Wall time of each whole process, in turn. The prediction is that of an untrained ResNet-18 on a made-up photograph,
beside a plain torchvision script that does the same; then that of an untrained ResNet-50, by PyTorch and exported, by
each engine that is installed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from engines import is_here, made, write_exports
from measuring import Arm, Figures, Record, add_common_options, medians, speeds
from PIL import Image

from residuum.cli import app
from residuum.data.preprocessing import Preprocessing
from residuum.models.catalogue import create_model
from residuum.weights import Classifier, save_model

PEER = Path(__file__).parent / "peers" / "predict.py"
RESIDUUM = [sys.executable, "-m", "residuum"]
NETWORK = "resnet50_v1_5"
FIRST_GOAL = 0.5  # seconds from the shell to the first prediction of an export
BY_EXPORT = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser, rounds=7)
    options = parser.parse_args()
    record = Record(options)
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(Path(folder))
        arms: dict[str, Arm] = {name: _timed(command) for name, command in commands.items()}
        if not record.rounds:
            for arm in arms.values():  # compiled modules and pages of files are then at hand for all
                arm()
        record.run(arms)
    record.conclude(
        seconds=medians(record.rounds, "seconds"),
        times_as_fast_as_peer=speeds(
            [{arm: figures[arm] for arm in ("torchvision predict", "residuum predict")} for figures in record.rounds],
            "torchvision predict",
            "seconds",
        ),
        first_prediction=first_prediction(medians(record.rounds, "seconds")),
    )


def first_prediction(seconds: Mapping[str, float]) -> Figures:
    """Of the exported networks, which are soon enough."""
    found = {arm: seconds[arm] for arm in seconds if arm.startswith(tuple(map(_arm, BY_EXPORT)))}
    return {"goal_seconds": FIRST_GOAL, "seconds": found, "met": {arm: found[arm] <= FIRST_GOAL for arm in found}}


def _timed(command: Sequence[str]) -> Arm:
    def measured() -> Figures:
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return {"seconds": seconds}

    return measured


def _commands(folder: Path) -> Mapping[str, Sequence[str]]:
    model, weights, image = _material(folder)
    verbs = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    return {
        "residuum --help": [*RESIDUUM, "--help"],
        **{f"residuum {verb} --help": [*RESIDUUM, verb, "--help"] for verb in verbs},
        "import torch": [sys.executable, "-c", "import torch"],
        "import torchvision": [sys.executable, "-c", "import torchvision"],
        "residuum predict": [*RESIDUUM, "predict", str(model), str(image)],
        "torchvision predict": [sys.executable, str(PEER), str(weights), str(image)],
        **_exports(folder, image),
    }


def _arm(computed_by: str) -> str:
    return f"residuum predict, ResNet-50, {computed_by}"


def _exports(folder: Path, image: Path) -> Mapping[str, Sequence[str]]:
    """Predictions of one network by PyTorch, and of its exports by the engines that are installed."""
    classifier = made(NETWORK, 224)
    save_model(folder / "run", classifier)
    write_exports(classifier, folder)
    commands = {_arm("PyTorch"): [*RESIDUUM, "predict", str(folder / "run"), str(image)]}
    for computed_by in filter(is_here, BY_EXPORT):
        engine = BY_EXPORT[computed_by]
        for number in ("fp32", "int8"):
            model = folder / f"{'onnx' if engine == 'onnxruntime' else engine}-{number}"
            command = [*RESIDUUM, "predict", str(model), str(image), "--engine", engine]
            commands[_arm(f"{computed_by}, {number}")] = command
    return commands


def _material(folder: Path) -> tuple[Path, Path, Path]:
    """A model folder, the same weights as a state dict, and a photograph's worth of JPEG, 500 by 375 pixels."""
    torch.manual_seed(0)
    network = create_model("resnet18", num_classes=1000, in_channels=3)
    classes = tuple(f"class {number}" for number in range(1000))
    preprocessing = Preprocessing(3, 224, crop_pct=224 / 256)
    save_model(folder / "model", Classifier(network, "resnet18", classes, preprocessing))
    torch.save(network.state_dict(), folder / "weights.pth")
    noise = np.random.default_rng(0).integers(0, 256, (38, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((500, 375)).save(folder / "photograph.jpg", quality=90)
    return folder / "model", folder / "weights.pth", folder / "photograph.jpg"


if __name__ == "__main__":
    main()
