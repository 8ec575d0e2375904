"""The wheel works by itself: built, unpacked elsewhere, and run without the source folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, elsewhere: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -P: nothing but the unpacked wheel can answer to the name, not even the current folder.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-m", "residuum", *arguments]
    return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)


def test_wheel_runs_without_the_source_folder(unpacked: Path, tmp_path: Path) -> None:
    listed = run(unpacked, tmp_path, "describe", "resnet20")
    assert listed.returncode == 0, listed.stderr
    assert "269,722" in listed.stdout


def test_wheel_holds_every_module_the_type_marker_and_the_licence(unpacked: Path) -> None:
    source = ROOT / "src"
    for path in (source / "residuum").rglob("*.py"):
        assert (unpacked / path.relative_to(source)).is_file()
    assert (unpacked / "residuum" / "py.typed").is_file()
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))


def test_wheel_holds_nothing_but_the_package(unpacked: Path) -> None:
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"residuum"}
