"""The reference stands alone: nothing but NumPy, and no function without words."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import residuum.reference

FOLDER = Path(residuum.reference.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))
STANDARD = {"collections", "functools", "math", "typing"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_imports_numpy_and_its_neighbours_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.startswith("residuum.reference") or name.split(".")[0] in STANDARD | {"numpy"}, name


def test_reading_it_needs_no_torch() -> None:
    modules = ", ".join(f"residuum.reference.{path.stem}" for path in FILES if path.stem != "__init__")
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'scipy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_reading_order_names_every_file() -> None:
    words = set((residuum.reference.__doc__ or "").replace(",", " ").split())
    assert {path.stem for path in FILES} - {"__init__", "arrays"} <= words


def test_the_reading_order_is_that_of_the_imports() -> None:
    text = inspect.getdoc(residuum.reference) or ""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("residuum.reference."):
                needed = str(node.module).rpartition(".")[2]
                if needed != "arrays":
                    assert text.index(f"{needed}") < text.index(f" {path.stem}"), f"{path.stem} before {needed}"
