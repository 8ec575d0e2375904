"""What computes exports: chosen, named, and in one line where it cannot."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from residuum.data.sources import DataSet
from residuum.errors import UserError
from residuum.inference import engines
from residuum.inference.deployed import deploy
from residuum.inference.engines import engines_at_hand, open_engine
from residuum.inference.evaluate import measure
from residuum.inference.exported import Exported
from residuum.processor import own_cores

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


def test_an_engine_that_is_unknown_or_cannot_run_it_is_refused(exports: dict[str, Exported]) -> None:
    with pytest.raises(UserError, match="unknown engine 'onyxruntime'; did you mean onnxruntime"):
        open_engine(exports["onnx"], "onyxruntime")
    with pytest.raises(UserError, match="onnxruntime does not run an export to openvino; that is done by openvino"):
        open_engine(exports["openvino"], "onnxruntime")


def test_an_engine_that_is_not_installed_is_named_with_what_installs_it(
    exports: dict[str, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else object())
    assert open_engine(exports["onnx"]).words.startswith("ONNX Runtime")
    for name in ("auto", "openvino"):
        with pytest.raises(UserError, match=r"openvino, which is not installed; run: pip install 'residuum\[export\]'"):
            open_engine(exports["openvino"], name)


def test_the_engine_says_what_it_computes_with(exports: dict[str, Exported]) -> None:
    found = open_engine(exports["onnx"], "onnxruntime").words
    assert re.fullmatch(r"ONNX Runtime \d+\.\d+\.\d+, fp32, \d+ threads?", found)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_a_damaged_file_is_one_line(to: str, exports: dict[str, Exported], tmp_path: Path) -> None:
    content = exports[to].file.read_bytes()
    for number, wrong in enumerate((b"", b"no model", content[: len(content) // 2], content[::-1])):
        file = tmp_path / f"{number}-{exports[to].file.name}"
        file.write_bytes(wrong)
        for name in engines_at_hand(exports[to]):
            with pytest.raises(UserError) as refusal:
                open_engine(replace(exports[to], file=file), name)
            assert "\n" not in str(refusal.value)
            assert file.name in str(refusal.value)


def test_a_file_of_another_network_is_refused(exports: dict[str, Exported]) -> None:
    for exported in exports.values():
        for name in engines_at_hand(exported):
            with pytest.raises(UserError, match=r"config\.json says .* to 3"):
                open_engine(replace(exported, classes=("a", "b", "c")), name)


def test_an_export_is_run_without_pytorch(exports: dict[str, Exported], images: np.ndarray) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np; from pathlib import Path\n"
        "from residuum.inference.deployed import deploy\n"
        "from residuum.inference.exported import read_exported\n"
        "from residuum.inference.engines import open_engine\n"
        "for folder, name in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    engine = open_engine(read_exported(Path(folder)), name)\n"
        "    assert engine(np.zeros((2, 1, SIDE, SIDE), np.float32)).shape == (2, 10)\n"
        "    views = np.zeros((1, SIDE, SIDE, 1), np.uint8)\n"
        "    assert deploy(folder, engine=name).probabilities(views).shape == (1, 10)\n"
    ).replace("SIDE", str(images.shape[2]))
    pairs = [(exports[to].file.parent, name) for to in ("onnx", "openvino") for name in engines_at_hand(exports[to])]
    arguments = [str(one) for pair in pairs for one in pair]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_an_engine_tells_nobody(exports: dict[str, Exported]) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from residuum.inference.exported import read_exported\n"
        "from residuum.inference.engines import open_engine\n"
        "open_engine(read_exported(Path(sys.argv[1])), 'openvino')\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    folder = str(exports["openvino"].file.parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_that_fails_while_it_computes_says_so_in_one_line(
    name: str, exports: dict[str, Exported], images: np.ndarray, tmp_path: Path
) -> None:
    shape = (1, images[0].size)
    nodes = [
        onnx.helper.make_node("Reshape", ["images", "shape"], ["row"]),
        onnx.helper.make_node("MatMul", ["row", "weight"], ["logits"]),
    ]
    ends = [("images", ["batch", *images.shape[1:]]), ("logits", ["batch", 10])]
    given, found = ([onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, sides)] for end, sides in ends)
    constants = {"shape": np.array(shape, np.int64), "weight": np.zeros((shape[1], 10), np.float32)}
    held = [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "fixed", given, found, held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    engine = open_engine(replace(exports["onnx"], file=tmp_path / "model.onnx"), name)
    assert engine(images[:1]).shape == (1, 10)
    with pytest.raises(UserError, match=rf"model\.onnx cannot be computed by {name} \(.*\); copy it again") as refusal:
        engine(images[:3])
    assert "\n" not in str(refusal.value)


def test_want_of_memory_is_told_as_such(exports: dict[str, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(engines, "_OPEN", {"onnxruntime": lambda _: engines.Engine("full", full, full)})
    engine = open_engine(exports["onnx"], "onnxruntime")
    assert engine.features is not None
    for use in (engine, engine.features):
        with pytest.raises(MemoryError):
            use(np.zeros((1, 1, 8, 8), np.float32))


def test_a_device_or_a_precision_is_refused_for_an_export_alone(exports: dict[str, Exported], digits: DataSet) -> None:
    folder, exported = exports["onnx"].file.parent, exports["onnx"]
    for choice in ({"device": "cuda"}, {"precision": "bf16"}):
        with pytest.raises(UserError, match=rf"--{next(iter(choice))} \w+ is for runs: .* leave it out"):
            deploy(folder, **choice)
    with pytest.raises(UserError, match="--precision bf16 is for runs"):
        measure([exported, exported], digits, device="cpu", precision="bf16")
    deploy(folder, device="cpu", precision="fp32")


def test_each_export_is_measured_by_its_own_engine(exports: dict[str, Exported], digits: DataSet) -> None:
    seen: list[str] = []

    def watched(name: str) -> engines.Engine:
        engine = open_engine(exports["onnx"], name)
        return replace(engine, run=lambda images: seen.append(name) or engine(images))

    measure([exports["onnx"]] * 2, digits, engines=[watched("openvino"), watched("onnxruntime")], workers=0)
    assert set(seen) == {"openvino", "onnxruntime"}


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residuum.processor.cores", lambda: 8)
    for processes, own in (("1", 8), ("3", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert own_cores() == own


# What takes an engine away, between two that were opened one after the other and a signal.
GOING = {
    "in the order of coming": "engines.pop(0); engines.pop(0)",
    "in another thread": "thread = Thread(target=engines.clear); thread.start(); thread.join()",
    "with what finds ranges": """
import openvino
model = openvino.Core().read_model(exported.file)
quantised(model, [numpy.ones((1, *exported.input_shape), numpy.float32)] * 2, ())
engines.clear()
""",
}
SIGNALLED = """
import signal, sys
from pathlib import Path
from threading import Thread
import numpy
from residuum.inference.engines import open_engine
from residuum.inference.exported import read_exported
from residuum.inference.quantise import quantised
signal.signal(signal.SIGINT, lambda *_: print("heard"))
exported = read_exported(Path(sys.argv[1]))
engines = [open_engine(exported, "openvino") for _ in range(2)]
{going}
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("how", GOING)
def test_a_signal_is_heard_after_engines_have_gone(how: str, exports: dict[str, Exported]) -> None:
    if how == "with what finds ranges":
        pytest.importorskip("nncf")
    script = SIGNALLED.format(going=GOING[how])
    told = subprocess.run(
        [sys.executable, "-c", script, str(exports["openvino"].file.parent)], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout[-6:]) == (0, "heard\n"), told.stderr
