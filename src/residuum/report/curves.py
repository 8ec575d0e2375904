"""Curves over training on a matplotlib axis, as He et al. 2015 draw them in figures 4 and 6."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from residuum.records import Series
from residuum.report.theme import GRID, INK, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.8), (1.2, 1.3), (6, 1.5, 1.2, 1.5), (9, 2.5))  # in line widths
_THIN, _BOLD = 0.9, 2.2  # points
_MOST_TICKS = 6
_START = 5  # a fifth of a training
_LINE_OF_TEXT = 11.0  # points, from one written value to the next


@dataclass(frozen=True)
class Stroke:
    """How a series is drawn: colour in hex, width in points, and lengths of dash, gap, ... in points (none: solid)."""

    colour: str
    width: float
    dashes: tuple[float, ...]


_REFERENCE = Stroke(INK, _THIN, (4 * _THIN, 3 * _THIN))


def strokes(group: Sequence[Series]) -> list[Stroke]:
    """Training series thin, all others bold; those of one run share colour and dashes.

    Without a run, the first thin and the first bold one belong together, and so on. A reference is a thin dashed line
    in the colour of text.
    Five kinds of dashes against six colours: thirty runs can be told apart, four of them on a grey print.
    """
    seen: Counter[bool] = Counter()
    drawn = []
    for series in group:
        if series.is_reference:
            drawn.append(_REFERENCE)
            continue
        width = _THIN if series.is_training else _BOLD
        number = seen[series.is_training] if series.run is None else series.run
        seen[series.is_training] += 1
        dashes = tuple(width * length for length in _DASHES[number % len(_DASHES)])
        drawn.append(Stroke(SERIES[number % len(SERIES)], width, dashes))
    return drawn


def draw_curves(axes: "Axes", group: Sequence[Series], *, log_y: bool = False) -> None:
    """Draw the series of one panel, without legend and labels. A bold percentage has its last value written.

    `log_y` is passed over where there is nothing above zero.
    """
    for series, stroke in zip(group, strokes(group), strict=True):
        axes.plot(
            series.x,
            series.y,
            color=stroke.colour,
            linewidth=stroke.width,
            linestyle=(0, [length / stroke.width for length in stroke.dashes]) if stroke.dashes else "solid",
            alpha=0.9 if series.is_training else None,
            zorder=2 if series.is_training else 3,
            solid_capstyle="round",
            marker="o" if len(series.x) == 1 or series.has_markers else None,
            markersize=2 + 2 * stroke.width if len(series.x) == 1 else 4 + stroke.width,
            label=series.name,
        )
        _draw_spread(axes, series, stroke)
    _set_height(axes, group, log_y)
    _write_last_values(axes, group)
    _dress(axes)
    _set_width(axes, group)


def _draw_spread(axes: "Axes", series: Series, stroke: Stroke) -> None:
    """Bars at marked points, a band along a curve. What reaches below zero on a logarithmic axis is cut off there."""
    if not series.spread:
        return
    if series.has_markers:
        axes.errorbar(
            series.x, series.y, series.spread, fmt="none", ecolor=stroke.colour, elinewidth=1, capsize=3, zorder=3
        )
        return
    low, high = ([y + sign * by for y, by in zip(series.y, series.spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(series.x, low, high, color=stroke.colour, alpha=0.16, linewidth=0, zorder=1)


def _set_height(axes: "Axes", group: Sequence[Series], log_y: bool) -> None:
    positive = [y for series in group for y in _heights(series) if y > 0]
    if log_y and positive:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(min(positive) / 1.15, max(positive) * 1.15)
        _plain_decades(axes, math.log10(max(positive) / min(positive)))
    else:
        top = _top_of_axis(group)
        axes.set_ylim(-0.02 * top, top)


def _set_width(axes: "Axes", group: Sequence[Series]) -> None:
    """Ticks at whole numbers; few marked points have one each, and a single x value stands amid."""
    from matplotlib.ticker import MaxNLocator

    values = {x for series in group for x in series.x}
    if len(values) == 1:
        (only,) = values
        axes.set_xlim(only - 1, only + 1)
        axes.set_xticks([only])
    elif len(values) <= _MOST_TICKS and all(series.has_markers for series in group):
        axes.set_xticks(sorted(values))
    else:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _plain_decades(axes: "Axes", decades: float) -> None:
    """Ticks at 1, 2 and 5, or at whole decades where there are many; written as numbers, not as powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _heights(series: Series) -> list[float]:
    """The values that the axis has to hold: with the upper ends of bars, while a band may leave it."""
    ends = (
        [y + by for y, by in zip(series.y, series.spread, strict=True)] if series.has_markers and series.spread else []
    )
    return [y for y in (*series.y, *ends) if math.isfinite(y)]


def _top_of_axis(group: Sequence[Series]) -> float:
    """The largest value; but where the first fifth of a training towers over the rest, the rest decides."""
    values = [_heights(series) for series in group]
    is_training = all(series.x_label == "epoch" for series in group)
    largest = max((y for ys in values for y in ys), default=0.0)
    settled = max((y for ys in values for y in ys[len(ys) // _START if is_training else 0 :]), default=0.0)
    top = settled if largest > 2 * settled else largest
    return 1.08 * top if top > 0 else 1.0


def _write_last_values(axes: "Axes", group: Sequence[Series]) -> None:
    """A single one above the end of its curve; several to the right of theirs, none upon another.

    Beside a reference curves are compared with it along their whole length.
    """
    if any(series.is_reference for series in group):
        return
    written = [
        (series, stroke)
        for series, stroke in zip(group, strokes(group), strict=True)
        if not series.is_training and "%" in series.y_label and series.y and math.isfinite(series.y[-1])
    ]
    height = axes.bbox.height * 72 / axes.figure.dpi
    to_axis = axes.transScale + axes.transLimits
    ends = [height * float(to_axis.transform((series.x[-1], series.y[-1]))[1]) for series, _ in written]
    beside = len(written) > 1
    for (series, stroke), end, place in zip(written, ends, spread(ends, _LINE_OF_TEXT), strict=True):
        axes.annotate(
            f"{series.y[-1]:.2f} %",
            (series.x[-1], series.y[-1]),
            xytext=(5, place - end - 3) if beside else (0, 7),
            textcoords="offset points",
            ha="left" if beside else "right",
            fontsize=8.5,
            color=stroke.colour,
            fontweight="bold",
            zorder=4,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The places, moved up no further than needed for each to be at least `gap` above the one below it."""
    moved = list(places)
    floor = -math.inf
    for index in sorted(range(len(places)), key=lambda index: places[index]):
        moved[index] = max(places[index], floor)
        floor = moved[index] + gap
    return moved


def _dress(axes: "Axes") -> None:
    axes.margins(x=0.02)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
