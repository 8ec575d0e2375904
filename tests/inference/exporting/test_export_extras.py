"""What an export needs, and what serves without PyTorch, is said before any work."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.errors import UserError
from residuum.inference import export as exporting
from residuum.inference.export import Int8, export
from residuum.inference.exported import Exported
from residuum.weights import Classifier, save_model

pytest.importorskip("onnxscript")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


WITHOUT_TORCH = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""


@pytest.mark.parametrize(("package", "to"), [("onnxscript", "onnx"), ("openvino", "openvino"), ("nncf", "onnx")])
def test_what_is_not_installed_is_refused_before_any_work(
    package: str, to: str, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == package else object())
    nothing = Classifier(nn.Identity(), "none", digits.classes, Preprocessing(1, 8, mean=(0.3,), std=(0.3,)))
    purpose = "int8" if package == "nncf" else f"an export to {to}"
    with pytest.raises(UserError, match=rf"^{purpose} needs {package}, which is not installed; run: pip install"):
        export(nothing, tmp_path / "out", to, digits, Int8(digits) if package == "nncf" else None)


def test_what_needs_pytorch_says_so_where_it_is_not_installed(
    exports: dict[str, Exported], classifier: Classifier, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", classifier)
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    code = f"{WITHOUT_TORCH}from residuum.cli import main\nsys.exit(main())\n"
    onnx_export, torch_export = (str(exports[to].file.parent) for to in ("onnx", "torch"))
    verbs = (
        ["predict", str(tmp_path / "model"), str(image)],
        ["predict", torch_export, str(image)],
        ["evaluate", onnx_export, "digits"],
        ["export", str(tmp_path / "model"), "--to", "onnx"],
    )
    for verb in verbs:
        done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "needs PyTorch, which is not installed; install it" in done.stderr
        assert done.stderr.count("\n") == 1
    code = (
        f"{WITHOUT_TORCH}from residuum.errors import UserError\n"
        "from residuum.inference.deployed import deploy\n"
        "for path in sys.argv[1:]:\n"
        "    try: deploy(path)\n"
        "    except UserError as error: assert 'needs PyTorch' in str(error)\n"
        "    else: raise AssertionError\n"
    )
    models = [str(tmp_path / "model"), torch_export]
    done = subprocess.run([sys.executable, "-c", code, *models], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
