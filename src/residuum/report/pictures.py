"""Pictures of records: training curves as the papers draw them, and contact sheets of images."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.records import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

Image_HWC = NDArray[np.uint8]

INK, GRID = "#1f2430", "#e3e6ea"
COLOURS = ("#1f5fbf", "#d1495b", "#2e8b57", "#c77f1a", "#6f4fa0", "#4a4a4a")


def plot_curves(panels: Sequence[Sequence[Series]], path: Path, title: str = "") -> None:
    """Draw each group of series in a panel of its own, side by side, into a PNG, SVG or PDF file.

    Series called "training ..." are thin and all others bold, as in He et al. 2015, figures 4 and 6; the
    first thin and the first bold one share a colour, and so on. A bold percentage has its last value written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3 * len(panels), 3.4), dpi=150, layout="constrained", facecolor="white")
    for axes, series in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, series)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", color=INK, parse_math=False)
    figure.savefig(path)


def _draw_panel(axes: "Axes", group: Sequence[Series]) -> None:
    thin = [series for series in group if _is_training(series)]
    bold = [series for series in group if not _is_training(series)]
    for series, colour in zip(thin, COLOURS, strict=False):
        axes.plot(series.x, series.y, color=colour, linewidth=0.9, alpha=0.9, label=series.name)
    for series, colour in zip(bold, COLOURS, strict=False):
        axes.plot(series.x, series.y, color=colour, linewidth=2.2, label=series.name, solid_capstyle="round")
        if "%" in series.y_label and series.y:
            _write_last_value(axes, series, colour)
    axes.set_xlabel(group[0].x_label, color=INK, fontsize=9)
    axes.set_ylabel(group[0].y_label, color=INK, fontsize=9)
    top = _top_of_axis(group)
    axes.set_ylim(-0.02 * top, top)
    _dress(axes)
    if len(group) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def _is_training(series: Series) -> bool:
    return series.name.startswith("training")


def _top_of_axis(group: Sequence[Series]) -> float:
    """The largest value; but where the first fifth of the curves towers over the rest, the rest decides."""
    values = [[y for y in series.y if np.isfinite(y)] for series in group]
    largest = max((y for ys in values for y in ys), default=0.0)
    settled = max((y for ys in values for y in ys[len(ys) // 5 :]), default=0.0)
    top = settled if largest > 2 * settled else largest
    return 1.08 * top if top > 0 else 1.0


def _write_last_value(axes: "Axes", series: Series, colour: str) -> None:
    axes.annotate(
        f"{series.y[-1]:.2f} %",
        (series.x[-1], series.y[-1]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=colour,
        fontweight="bold",
    )


def _dress(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.margins(x=0.02)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=INK, length=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)


def contact_sheet(rows: Sequence[tuple[str, Iterable[Image_HWC]]], path: Path, tile: int = 64) -> None:
    """Write a PNG with one row a class: its name, then its images, each in a square of `tile` pixels.

    rows: (name, images), each image (H, W, 1 or 3) uint8, taken one by one. Small images grow by a whole
    factor, unblurred.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=max(11, tile // 5))
    gap, names = 4, [_shortened(name) for name, _ in rows]
    tiles = [[_tile(image, tile) for image in images] for _, images in rows]
    label_width = int(max(font.getlength(name) for name in names)) + 3 * gap
    across = max(map(len, tiles))
    sheet = Image.new("RGB", (label_width + across * (tile + gap) + gap, len(rows) * (tile + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, row_tiles) in enumerate(zip(names, tiles, strict=True)):
        top = gap + row * (tile + gap)
        draw.text((label_width - 2 * gap, top + tile / 2), name, fill=INK, font=font, anchor="rm")
        for column, tiled in enumerate(row_tiles):
            left = label_width + column * (tile + gap)
            sheet.paste(tiled, (left + (tile - tiled.width) // 2, top + (tile - tiled.height) // 2))
    sheet.save(path, format="PNG")


def _shortened(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _tile(image: Image_HWC, tile: int) -> "Image.Image":
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    factor = tile / max(picture.size)
    if factor >= 1:
        size = (picture.width * int(factor), picture.height * int(factor))
        return picture.resize(size, Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)
