"""Pictures of records: training curves as the papers draw them, and contact sheets of images."""

import base64
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.records import Series
from residuum.report.curves import draw_curves
from residuum.report.theme import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

Image_HWC = NDArray[np.uint8]

TINY = 96
"""Images of at most this many pixels in height are shown pixel by pixel, higher ones as photographs."""
_LONGEST = 640  # pixels of a photograph within a page


def plot_curves(panels: Sequence[Sequence[Series]], path: Path, title: str = "") -> None:
    """Draw each group of series in a panel of its own, side by side, into a PNG, SVG or PDF file.

    Training series are thin and all others bold, as in He et al. 2015, figures 4 and 6; those of one run share a
    colour. A bold percentage has its last value written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3 * len(panels), 3.4), dpi=150, layout="constrained", facecolor="white")
    for axes, series in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, series)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", color=INK, parse_math=False)
    figure.savefig(path)


def _draw_panel(axes: "Axes", group: Sequence[Series]) -> None:
    draw_curves(axes, group)
    axes.set_xlabel(group[0].x_label, color=INK, fontsize=9)
    axes.set_ylabel(group[0].y_label, color=INK, fontsize=9)
    if len(group) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


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


def data_uri(image: Image_HWC) -> str:
    """An image (H, W, 1 or 3) as a `data:` address: a tiny one exactly, as PNG; a higher one as JPEG of quality 85.

    A photograph of more than 640 pixels a side is reduced to that.
    """
    from PIL import Image

    picture = _picture(image)
    file = BytesIO()
    if picture.height <= TINY:
        picture.save(file, format="PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
        picture.save(file, format="JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _shortened(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _tile(image: Image_HWC, tile: int) -> "Image.Image":
    from PIL import Image

    picture = _picture(image)
    factor = tile / max(picture.size)
    if factor >= 1:
        size = (picture.width * int(factor), picture.height * int(factor))
        return picture.resize(size, Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _picture(image: Image_HWC) -> "Image.Image":
    from PIL import Image

    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
