"""A page of records as one HTML file that needs nothing else: it opens from a disk, in light or dark, and prints."""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residuum.records import (
    Chart,
    Gallery,
    Matrix,
    Measurement,
    Measurements,
    Page,
    Part,
    Picture,
    Scatter,
    Series,
    Table,
)
from residuum.report.cells import cell_texts, decimals_of, numeric_columns
from residuum.report.curves import Stroke, strokes
from residuum.report.figures import MARKERS, MOST_NAMED, curves_svg, group_marks, scatter_svg
from residuum.report.matrices import confused_pairs, is_drawn, is_numbered, matrix_cells
from residuum.report.pictures import TINY, data_uri
from residuum.report.theme import DARK, LIGHT, rgb, with_variables

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

View = dict[str, Any]
"""What the template of one part is filled with."""

_TEMPLATES = Path(__file__).parent / "templates"
_ENLARGED = 128  # pixels of height that a tiny picture grows to at most
_KERNEL, _ENLARGED_KERNEL = 11, 64  # the same for the weights of a first layer
_PHOTOGRAPH = 208  # pixels of height to lay a photograph out with
_CAPTION = 112  # pixels of width that a caption needs
_MOST_ROWS = 80  # of a table or a matrix that is not scrolled


def page_html(page: Page) -> str:
    """The whole file as text: the same for the same page, nothing loaded from anywhere, all foreign text escaped.

    Its Content-Security-Policy lets a browser fetch nothing and run no script but its own.
    """
    from markupsafe import Markup

    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    html = (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            sections=[_section_view(number, page) for number in range(1, len(page.sections) + 1)],
            light=LIGHT,
            dark=DARK,
            rgb=rgb,
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return html.encode("utf-8", "replace").decode()  # a file's name may hold what is no character


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    environment.filters["dotted"] = _dotted
    return environment


def _dotted(text: str) -> "Markup":
    """The name of a field, which may break after a dot, `optimizer.` `lr`; a number in it may not."""
    from markupsafe import Markup

    return Markup(".<wbr>").join(re.split(r"\.(?!\d)", text))


def _section_view(number: int, page: Page) -> View:
    section = page.sections[number - 1]
    key = f"section-{number}"
    parts = [_part_view(part, f"{key}-{place}") for place, part in enumerate(section.parts, start=1)]
    return {"key": key, "title": section.title, "parts": parts}


def _part_view(part: Part, key: str) -> View:
    return {"kind": type(part).__name__.lower(), "key": key, **_VIEWS[type(part)](part, key)}


def _text_view(text: str, key: str) -> View:
    return {"paragraphs": [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]}


def _table_view(table: Table, key: str) -> View:
    return {
        "title": table.title,
        "columns": list(zip(table.columns, numeric_columns(table), strict=True)),
        "rows": cell_texts(table),
        "tall": len(table.rows) > _MOST_ROWS,
        "notes": table.notes,
    }


def _matrix_view(matrix: Matrix, key: str) -> View:
    drawn, numbered = is_drawn(matrix), is_numbered(matrix)
    totals = matrix.values.sum(axis=1).tolist()
    return {
        "matrix": matrix,
        "numbered": numbered,
        "rows": list(zip(matrix.rows, totals, matrix_cells(matrix), strict=True)) if drawn else [],
        "tall": len(matrix.rows) > _MOST_ROWS,
        "pairs": None if numbered else _table_view(confused_pairs(matrix), key),
    }


def _chart_view(chart: Chart, key: str) -> View:
    panels = [_panel_view(chart, group, f"{key}-{number}") for number, group in enumerate(chart.panels, start=1)]
    return {"title": chart.title, "panels": panels, "log_y": chart.log_y, "log_first": chart.log_first}


def _panel_view(chart: Chart, group: Sequence[Series], key: str) -> View:
    from markupsafe import Markup

    label = group[0].y_label
    scales = {"linear": False, "logarithmic": True} if chart.log_y else {"linear": False}
    alt = f"{chart.alt} ({label})"
    with_reference = any(series.is_reference for series in group)
    return {
        "label": label,
        "drawings": {
            scale: Markup(curves_svg(group, f"{key}-{scale}", alt, log_y=log_y)) for scale, log_y in scales.items()
        },
        "legend": [
            (series.name, "" if with_reference else _last_value(series), _swatch(stroke))
            for series, stroke in zip(group, strokes(group), strict=True)
        ],
    }


def _last_value(series: Series) -> str:
    """What a training ended at; of a line over layers the last value says nothing."""
    if not series.y:
        return ""
    if "%" in series.y_label:
        return f"{series.y[-1]:.2f} %"
    return f"{series.y[-1]:.4g}" if series.x_label == "epoch" else ""


def _swatch(stroke: Stroke) -> View:
    return {
        "colour": with_variables(stroke.colour),
        "width": stroke.width,
        "dashes": " ".join(f"{length:.1f}" for length in stroke.dashes) or "none",
    }


def _scatter_view(scatter: Scatter, key: str) -> View:
    from markupsafe import Markup

    marks = group_marks(scatter.groups)
    legend = [(name, with_variables(colour), MARKERS[marker]) for name, (colour, marker) in marks.items()]
    return {
        "title": scatter.title,
        "drawing": Markup(scatter_svg(scatter, key)),
        "legend": legend if len(legend) <= MOST_NAMED else [],
        "classes": len(legend),
    }


def _gallery_view(gallery: Gallery, key: str) -> View:
    pictures = [_picture_view(picture) for picture in gallery.pictures]
    return {
        "title": gallery.title,
        "note": gallery.note,
        "pictures": pictures,
        "tiny": all(picture["tiny"] for picture in pictures),
        "columns": gallery.columns,
        "cell": max((picture["cell"] for picture in pictures), default=0),
    }


def _picture_view(picture: Picture) -> View:
    height, width = picture.pixels.shape[:2]
    tiny = height <= TINY
    factor = (_ENLARGED_KERNEL if height <= _KERNEL else _ENLARGED) // height if tiny else 1
    laid_out = factor * width if tiny else width * min(height, _PHOTOGRAPH) // height
    return {
        "uri": data_uri(picture.pixels),
        "alt": picture.alt,
        "caption": picture.caption,
        "width": width * factor,
        "height": height * factor,
        "tiny": tiny,
        "cell": max(laid_out, _CAPTION if picture.caption else 0),
    }


def _measurements_view(measurements: Measurements, key: str) -> View:
    notes = {note for _, _, note in measurements.items}
    return {
        "tiles": [
            {
                "name": name,
                "value": _number(measured.value, measured),
                "unit": measured.unit,
                "note": note if len(notes) > 1 else "",
                "interval": _interval_view(measured, _scale(measurements)),
            }
            for name, measured, note in measurements.items
        ],
        "note": notes.pop() if len(notes) == 1 else "",
        "with_tracks": measurements.one_scale,
    }


def _number(value: float, measured: Measurement) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.{decimals_of([measured.value], percent=measured.unit == '%')}f}"


def _scale(measurements: Measurements) -> tuple[float, float]:
    """From where to where the intervals reach, with some air."""
    ends = [end for _, measured, _ in measurements.items for end in _interval(measured) or ()]
    air = 0.15 * (max(ends) - min(ends)) if ends else 0.0
    return (min(ends) - air, max(ends) + air) if ends else (0.0, 1.0)


def _interval(measured: Measurement) -> tuple[float, float] | None:
    if measured.low is None or measured.high is None or not math.isfinite(measured.high - measured.low):
        return None
    return measured.low, measured.high


def _interval_view(measured: Measurement, scale: tuple[float, float]) -> View | None:
    """Ends and value in words, and where they lie on the scale, in percent of its length."""
    interval = _interval(measured)
    if interval is None:
        return None
    low, high = interval
    length = scale[1] - scale[0] or 1.0
    left, right, dot = (100 * (end - scale[0]) / length for end in (low, high, measured.value))
    return {
        "low": _number(low, measured),
        "high": _number(high, measured),
        "left": f"{left:.1f}",
        "width": f"{right - left:.1f}",
        "dot": f"{dot:.1f}",
    }


_VIEWS: dict[type, Callable[[Any, str], View]] = {
    str: _text_view,
    Table: _table_view,
    Matrix: _matrix_view,
    Chart: _chart_view,
    Scatter: _scatter_view,
    Gallery: _gallery_view,
    Measurements: _measurements_view,
}
