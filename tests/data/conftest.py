from collections.abc import Callable
from pathlib import Path

import pytest
from image_bytes import coloured_png

SHARED_DATA = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture(autouse=True)
def data_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's own cache."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESIDUUM_DATA", str(cache))
    return cache


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the small real data sets are not beside this checkout")
    return SHARED_DATA


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """make_folder({"train/cat": 3, "test/dog": 1}) -> a folder with so many different small PNGs."""

    def make(counts: dict[str, int], name: str = "photos") -> Path:
        shade = 0
        for folder, count in counts.items():
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                (tmp_path / name / folder / f"{index}.png").write_bytes(coloured_png(shade))
                shade += 1
        return tmp_path / name

    return make
