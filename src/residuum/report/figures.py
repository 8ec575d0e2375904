"""Charts as SVG that stands inside a page: its colours are the page's variables, its text the page's font."""

import re
from collections.abc import Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

from residuum.records import Scatter, Series
from residuum.report.curves import draw_curves
from residuum.report.theme import GRID, INK, SERIES, with_variables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = {
    "o": "M6 2a4 4 0 1 1-.01 0z",
    "s": "M2.5 2.5h7v7h-7z",
    "^": "M6 1.5 10.5 10h-9z",
    "D": "M6 1 11 6 6 11 1 6z",
    "v": "M6 10.5 1.5 2h9z",
}
"""matplotlib's markers, and the same as SVG paths in a square of 12 for a legend."""

_NO_DATE_NO_MAKER = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_MOST_DISTINCT = 10  # groups
MOST_NAMED = 20
"""Groups of a scatter plot with a legend; of more, nobody tells the colours apart."""


def curves_svg(group: Sequence[Series], key: str, alt: str, *, log_y: bool = False) -> str:
    """One panel of curves, as `residuum.report.curves` draws it. Every id in it begins with `key`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 2.5), layout="constrained")
    axes = figure.subplots()
    draw_curves(axes, group, log_y=log_y)
    axes.set_xlabel(group[0].x_label, color=INK, fontsize=9)
    return _inline_svg(figure, key, alt)


def scatter_svg(scatter: Scatter, key: str) -> str:
    """The points of a scatter plot, without units: what counts is who is near whom. Every id begins with `key`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (colour, marker) in group_marks(scatter.groups).items():
        points = [(x, y) for x, y, group in zip(scatter.x, scatter.y, scatter.groups, strict=True) if group == name]
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=3.6, markeredgewidth=0, alpha=0.75)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(GRID)
    return _inline_svg(figure, key, scatter.alt)


def group_marks(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour (hex) and marker of each group, in the order they first come.

    Up to ten differ in both or at least plainly in one; more are dots in colours along a map.
    """
    names = list(dict.fromkeys(groups))
    if len(names) <= _MOST_DISTINCT:
        kinds = list(MARKERS)
        return {name: (SERIES[n % len(SERIES)], kinds[n % len(kinds)]) for n, name in enumerate(names)}
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    # The ends of the map are too dark to be seen on one of the two papers.
    return {name: (to_hex(colormaps["turbo"](0.08 + 0.84 * n / (len(names) - 1))), "o") for n, name in enumerate(names)}


def _inline_svg(figure: "Figure", key: str, alt: str) -> str:
    """The drawing as an element of HTML: the same bytes every time, and no id or style that another could meet."""
    import matplotlib as mpl

    file = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_DATE_NO_MAKER)
    drawing = re.sub(r"<style.*?</style>", "", file.getvalue(), flags=re.DOTALL)
    head = re.search(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', drawing)
    assert head is not None
    body = _with_own_ids(_shortened(with_variables(drawing[head.end() :])), key)
    return f'<svg {head[1]} role="img" aria-label="{escape(alt)}">{body.strip()}'


def _with_own_ids(svg: str, key: str) -> str:
    for before in ('id="', 'href="#', "url(#"):
        svg = svg.replace(before, f"{before}{key}-")
    return svg


def _shortened(svg: str) -> str:
    """Coordinates to a hundredth of a point, which nobody sees."""
    coordinates = re.compile(r' (?:d|x|y|transform)="[^"]*"')
    return coordinates.sub(lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)
