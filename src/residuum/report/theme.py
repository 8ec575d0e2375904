"""The colours of pictures and pages, light and dark, and how a drawing in the light ones follows the reader's."""

import re

SERIES = ("#1f5fbf", "#b8560b", "#0d4433", "#7d1f72", "#4a3500", "#70747d")
"""Six that differ by lightness as well as by hue, so that no kind of colour blindness makes two of them one."""

LIGHT = {
    "paper": "#fdfcf9",
    "surface": "#f4f1ea",
    "ink": "#1f2430",
    "muted": "#5a6170",
    "line": "#e3e6ea",
    "accent": "#1f5fbf",
    **{f"series-{number}": colour for number, colour in enumerate(SERIES, start=1)},
}
DARK = {
    "paper": "#15171c",
    "surface": "#1e2128",
    "ink": "#ebe8e2",
    "muted": "#a4a9b5",
    "line": "#30343d",
    "accent": "#8ab4f8",
    "series-1": "#8ab4f8",
    "series-2": "#ff6536",
    "series-3": "#3fe6a4",
    "series-4": "#d65a9e",
    "series-5": "#ffd84a",
    "series-6": "#dbe0ec",
}
INK, GRID = LIGHT["ink"], LIGHT["line"]

_VARIABLES = {
    LIGHT[name]: f"var(--{name})" for name in ("ink", "line", *(f"series-{n + 1}" for n in range(len(SERIES))))
}


def with_variables(drawing: str) -> str:
    """SVG or CSS in the light colours, each of them replaced by its CSS variable: `#1f2430` by `var(--ink)`."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), drawing)


def rgb(colour: str) -> str:
    """ "#1f2430" as "31 36 48", which CSS can make transparent."""
    return " ".join(str(byte) for byte in bytes.fromhex(colour[1:]))
