"""What puts an exported model to work starts where PyTorch is not installed."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from residuum.inference import serve

MODULES = (
    "residuum",
    "residuum.errors",
    "residuum.files",
    "residuum.records",
    "residuum.hub",
    "residuum.model_config",
    "residuum.tensor_files",
    "residuum.data.decoding",
    "residuum.data.reading",
    "residuum.data.preprocessing",
    "residuum.data.sources.folders",
    "residuum.inference.predict",
    "residuum.inference.deployed",
    "residuum.inference.exported",
    "residuum.inference.engines",
    "residuum.inference.bench",
    "residuum.inference.bulk",
    "residuum.inference.cluster",
    "residuum.inference.journal",
    "residuum.inference.paths",
    "residuum.inference.rows",
    "residuum.inference.shards",
    "residuum.cli",
)
SERVING = tuple(
    f"residuum.inference.serve.{path.stem}" for path in sorted(Path(serve.__file__).parent.glob("[!_]*.py"))
)
SCRIPT = """
import sys
from importlib import import_module

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
failures = {}
for name in sys.argv[1:]:
    try:
        import_module(name)
    except Exception as error:
        failures[name] = f"{type(error).__name__}: {error}"
print(failures)
"""


def imported_without_torch(*names: str) -> dict[str, str]:
    """Why modules could not be imported, by name, in a fresh interpreter without PyTorch and torchvision."""
    process = subprocess.run([sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    failures: dict[str, str] = ast.literal_eval(process.stdout)
    return failures


def test_what_serves_exported_models_needs_no_torch() -> None:
    assert imported_without_torch(*MODULES) == {}


def test_what_serves_over_http_needs_no_torch() -> None:
    if all(map(find_spec, ("fastapi", "uvicorn", "python_multipart", "prometheus_client"))):
        assert imported_without_torch(*SERVING) == {}


def test_what_trains_does_need_it() -> None:
    (failure,) = imported_without_torch("residuum.weights").values()
    assert failure == "ModuleNotFoundError: No module named 'torch'"
