"""Pictures: files that open, and the things in them that can be counted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residuum.records import Series
from residuum.report.pictures import contact_sheet, plot_curves


def curve(name: str, label: str, y: tuple[float, ...]) -> Series:
    return Series(name, tuple(range(1, len(y) + 1)), y, "epoch", label, is_training=name == "training")


def test_curves_become_a_picture_and_leave_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    error = [curve("training", "error [%]", (90.0, 5.0)), curve("test", "error [%]", (88.0, 7.5))]
    plot_curves([error, [curve("rate", "learning rate", (0.1, 0.0))]], tmp_path / "curves.png", "a run")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 2 * picture.height
    assert dict(mpl.rcParams) == before


def test_last_test_error_is_written_and_the_last_training_error_is_not(tmp_path: Path) -> None:
    error = [curve("training", "error [%]", (90.0, 5.25)), curve("test", "error [%]", (88.0, 7.5))]
    plot_curves([error], tmp_path / "curves.svg")
    # SVG text is drawn as glyph shapes, with the text itself in a comment before them.
    drawing = (tmp_path / "curves.svg").read_text()
    assert "<!-- 7.50 % -->" in drawing
    assert "<!-- 5.25 % -->" not in drawing


def test_title_is_taken_literally(tmp_path: Path) -> None:
    plot_curves([[curve("test", "error [%]", (5.0,))]], tmp_path / "curves.svg", "pics$_$ on digits")
    assert "<!-- pics$_$ on digits -->" in (tmp_path / "curves.svg").read_text()


@pytest.mark.parametrize("y", [(), (5.0,), (0.0, 0.0), (float("nan"), 3.0)])
def test_short_and_odd_curves_are_drawn(tmp_path: Path, y: tuple[float, ...]) -> None:
    plot_curves([[curve("test", "error [%]", y)]], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_contact_sheet_has_a_row_a_class_and_shows_the_images(tmp_path: Path) -> None:
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    wide_grey = np.full((10, 200, 1), 77, np.uint8)
    contact_sheet([("one", [red, red]), ("two", [wide_grey])], tmp_path / "sheet.png", tile=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert (pixels == (255, 0, 0)).all(axis=1).sum() == 2 * 32 * 32
    assert (pixels == 77).all(axis=1).sum() == 32 * 2  # 200 x 10 fitted into 32 pixels


def test_contact_sheet_takes_a_class_without_images_and_a_long_name(tmp_path: Path) -> None:
    contact_sheet([("ä very long name " * 5, []), ("b", [np.zeros((1, 1, 3), np.uint8)])], tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 0
