"""Imports point down only: the parts of the package know what the design lets them know, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "residuum"

BASE = {"errors", "records", "randomness", "distributed", "hardware", "files", "processor", "ray_cluster"}
WEIGHTS = {"weights", "pretrained", "state_dicts", "model_config", "tensor_files", "hub"}
ALLOWED = {
    "models": BASE,
    "data": BASE,
    **dict.fromkeys(WEIGHTS, BASE | WEIGHTS | {"models", "data"}),
    "evaluation": BASE | {"data"},
    "inference": BASE | WEIGHTS | {"evaluation", "data"},
    "training": BASE | WEIGHTS | {"evaluation", "models", "data"},
    "diagnosis": BASE,
    "studies": BASE | WEIGHTS | {"training", "inference", "diagnosis", "evaluation", "models", "data"},
    "report": {"records"},
    "reference": set(),
}
ON_TOP = {"cli", "__init__", "__main__"}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Every module a file imports, at its top or inside a function, for type checkers or for real."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_parts(path: Path) -> set[str]:
    names = (name.split(".") for name in imported_modules(path))
    return {name[1] for name in names if name[0] == "residuum" and len(name) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part in ON_TOP:
        return
    assert part in BASE or part in ALLOWED, f"{part} has no place in the layers; give it one here and in the design"
    allowed = BASE if part in BASE else ALLOWED[part] | {part}
    assert imported_parts(path) <= allowed


def test_only_the_command_line_knows_the_command_line() -> None:
    knowing = {part_of(path) for path in FILES if "cli" in imported_parts(path)}
    assert knowing <= {"cli", "__main__"}


def test_the_reference_knows_nothing_but_numpy() -> None:
    names = {name.split(".")[0] for path in FILES if part_of(path) == "reference" for name in imported_modules(path)}
    assert names <= {"residuum", "numpy", "math", "collections", "typing"}


def test_no_file_is_named_after_nothing() -> None:
    assert not {path.stem for path in FILES} & {"utils", "util", "helpers", "common", "misc"}
