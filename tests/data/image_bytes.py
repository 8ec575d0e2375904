"""Encoded images for the tests of this folder."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from residuum.data.splits import FileSplit, PackedNames


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def coloured_png(shade: int) -> bytes:
    """6 x 4 pixels of RGB (shade, 10, 200)."""
    return encoded(Image.new("RGB", (6, 4), (shade, 10, 200)), "PNG")


def unlabelled(paths: Sequence[Path]) -> FileSplit:
    """Image files as a split without labels."""
    return FileSplit(Path(), PackedNames(map(str, paths)), np.full(len(paths), -1, np.int64))
