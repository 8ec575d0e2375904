"""What a verb does not import, and so does not wait for. Each runs in an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from residuum.cli import app
from residuum.data.preprocessing import Preprocessing
from residuum.models.catalogue import create_model
from residuum.weights import Classifier, save_model

VERBS = sorted(command.callback.__name__ for command in app.registered_commands)

HEAVY = {"torch", "numpy", "PIL", "safetensors", "torchvision", "matplotlib", "sklearn", "scipy", "tensorboard"}
SELDOM_NEEDED = {"torchvision", "matplotlib", "sklearn", "scipy", "pandas", "tensorboard", "timm", "IPython"}
COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
"""A second's import that PyTorch does by itself when it is asked for the shapes of meta tensors."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, Classifier(create_model("resnet8", num_classes=2), "resnet8", ("a", "b"), Preprocessing(3, 32)))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def in_a_fresh_interpreter(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def imported_by(*arguments: str | Path) -> set[str]:
    """The modules that are loaded after `residuum ARGUMENTS`, which must have ended well and without complaints."""
    code = "from residuum.cli import main\ncode = main(sys.argv[1:])\nprint(*sys.modules)\nsys.exit(code)"
    done = in_a_fresh_interpreter(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr  # as some libraries print that find their objects alive at the end
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_that_takes_long(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & HEAVY


def test_a_refused_command_line_imports_nothing_that_takes_long() -> None:
    code = "from residuum.cli import main\nmain(['train', 'digits', '--bacth-size', '3'])\nprint(*sys.modules)"
    done = in_a_fresh_interpreter(code)
    assert "--batch-size" in done.stderr
    assert not set(done.stdout.split()) & HEAVY


def test_predict_imports_what_it_uses(model: Path, photos: Path) -> None:
    assert not imported_by("predict", model, photos) & (SELDOM_NEEDED | COMPILER | {"rich.progress"})


def test_evaluate_imports_what_it_uses(model: Path, photos: Path) -> None:
    assert not imported_by("evaluate", model, photos, "-j", "0") & (SELDOM_NEEDED | COMPILER)


def test_check_imports_what_it_uses(photos: Path) -> None:
    assert not imported_by("check", photos) & (SELDOM_NEEDED | COMPILER)


def test_digits_do_not_take_the_whole_of_scikit_learn() -> None:
    assert not imported_by("check", "digits") & SELDOM_NEEDED


@pytest.mark.parametrize("arguments", [["models", "resnet20"], ["describe", "resnet20"]], ids=" ".join)
def test_networks_are_counted_without_the_compiler(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & (SELDOM_NEEDED | COMPILER)


def test_a_trained_network_is_described_without_the_compiler(model: Path) -> None:
    assert not imported_by("describe", model) & (SELDOM_NEEDED | COMPILER)


def test_the_garbage_collector_skips_what_is_imported_and_goes_on() -> None:
    code = "import gc\nfrom residuum.cli.startup import import_torch\nimport_torch()\n"
    done = in_a_fresh_interpreter(f"{code}print(gc.isenabled(), gc.get_freeze_count() > 100_000)")
    assert done.stdout.split() == ["True", "True"]


def test_the_garbage_collector_of_another_program_is_left_alone() -> None:
    code = "import gc, torch\nfrom residuum.cli.startup import import_torch\nbefore = gc.get_freeze_count()\n"
    done = in_a_fresh_interpreter(f"{code}import_torch()\nprint(gc.isenabled(), gc.get_freeze_count() == before)")
    assert done.stdout.split() == ["True", "True"]
