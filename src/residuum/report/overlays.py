"""Heat laid over a picture."""

import numpy as np
from numpy.typing import NDArray

_MOST_COVERED = 0.6  # where the heat is 1, so that the picture shows through


def overlay(pixels: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A picture (H, W, 1 or 3) uint8 under its heat (H, W) in [0, 1], as (H, W, 3) uint8.

    What is cold stays as it is; the hotter, the less of the picture and the more of the colour. The colours are
    matplotlib's inferno, whose lightness rises evenly: its order is seen without seeing red or green.
    """
    from matplotlib import colormaps

    assert pixels.shape[:2] == heat.shape
    tint = 255 * colormaps["inferno"](heat)[:, :, :3]
    covered = _MOST_COVERED * heat[:, :, None]
    return np.rint((1 - covered) * pixels + covered * tint).astype(np.uint8)
