"""Real data for small runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residuum.data.sources import DataSet, open_data


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return open_data("digits")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 24x32 colour images, 12 each: one reddish, one bluish."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name, channel in (("red", 0), ("blue", 2)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (24, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"
