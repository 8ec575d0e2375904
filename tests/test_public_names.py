"""The names that `import residuum` offers: a change here is a change for every user."""

import subprocess
import sys

import residuum

NAMES = [
    "Classifier",
    "DataSet",
    "Evaluation",
    "Prediction",
    "Protocol",
    "TrainResult",
    "UserError",
    "check_data",
    "create_model",
    "diagnose",
    "evaluate",
    "list_models",
    "load",
    "measure",
    "open_data",
    "predict",
    "run_study",
    "save_model",
    "summarise",
    "train",
]


def test_public_names_are_these() -> None:
    assert residuum.__all__ == NAMES
    assert residuum.__all__ == sorted(residuum.__all__)


def test_every_public_name_is_there_and_documented() -> None:
    for name in NAMES:
        assert name in dir(residuum)
        assert getattr(residuum, name).__doc__, name


def test_unknown_name_is_refused() -> None:
    assert not hasattr(residuum, "no_such_name")


def test_importing_residuum_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, residuum; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
