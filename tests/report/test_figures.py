"""Charts: curves that can be told apart, and SVG that can stand in a page beside others."""

import itertools
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residuum.records import Scatter, Series
from residuum.report.curves import draw_curves, spread, strokes
from residuum.report.figures import curves_svg, group_marks, scatter_svg
from residuum.report.theme import DARK, LIGHT, with_variables

# Machado, Oliveira and Fernandes 2009, table 1, full severity; rows and columns are linear red, green, blue.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, vision: str) -> np.ndarray:
    """A hex colour as CIELAB under D65, as one kind of eye sees it."""
    rgb = np.array(list(bytes.fromhex(colour[1:]))) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def run(
    name: str, y: tuple[float, ...] = (60.0, 12.5, 8.41), label: str = "error [%]", number: int | None = None
) -> Series:
    x = tuple(float(n + 1) for n in range(len(y)))
    return Series(name, x, y, "epoch", label, number, is_training=name.startswith("training, "))


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_of_curves_differ_for_every_eye(theme: dict[str, str], vision: str) -> None:
    seen = [lab(colour, vision) for name, colour in theme.items() if name.startswith("series")]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20


def test_a_run_has_one_colour_and_one_kind_of_dashes_and_no_other_run_both() -> None:
    group = [series for n in range(30) for series in (run(f"training, {n}"), run(f"test, {n}"))]
    drawn = strokes(group)
    thin, bold = drawn[::2], drawn[1::2]
    assert [stroke.colour for stroke in thin] == [stroke.colour for stroke in bold]
    assert [len(stroke.dashes) for stroke in thin] == [len(stroke.dashes) for stroke in bold]
    assert all(a.width < b.width for a, b in zip(thin, bold, strict=True))
    assert len({(stroke.colour, stroke.dashes) for stroke in bold}) == 30
    assert bold[0].dashes == ()


def test_a_run_keeps_its_colour_where_another_is_missing() -> None:
    both = strokes([run("a", number=0), run("training, b", number=1), run("b", number=1)])
    assert strokes([run("training, b", number=1), run("b", number=1)]) == both[1:]
    assert both[0].colour != both[1].colour == both[2].colour


def test_a_run_called_training_is_drawn_as_any_other() -> None:
    (stroke,) = strokes([Series("training-2", (1.0,), (5.0,), "epoch", "error [%]")])
    assert stroke == strokes([run("test")])[0]


def test_a_single_epoch_has_a_single_tick() -> None:
    texts = re.findall(r">([^<>]+)</text>", curves_svg([run("test", (20.0,)), run("training, ", (30.0,))], "k", "alt"))
    assert texts[: texts.index("epoch")] == ["1"]


def test_every_curve_is_drawn_however_many_there_are() -> None:
    drawing = curves_svg([run(f"test, {n}") for n in range(9)], "k", "nine")
    assert len(re.findall(r'id="k-line2d_\d+"', drawing)) >= 9
    assert drawing.count(" 8.41 %") + drawing.count(">8.41 %") == 9


def test_drawing_takes_its_colours_from_the_page_and_its_text_stays_text() -> None:
    drawing = curves_svg([run("training, "), run("test")], "k", "error falls")
    for variable in ("var(--ink)", "var(--line)", "var(--series-1)"):
        assert variable in drawing
    assert not set(re.findall("#[0-9a-f]{6}", drawing)) & set(LIGHT.values())
    assert ">8.41 %</text>" in drawing
    assert ">epoch</text>" in drawing


def test_drawings_are_the_same_bytes_and_share_no_id() -> None:
    group = [run("training, "), run("test")]
    assert curves_svg(group, "a", "alt") == curves_svg(group, "a", "alt")
    ids = [re.findall(r'id="([^"]+)"', curves_svg(group, key, "alt")) for key in ("a", "b")]
    assert all(name.startswith("a-") for name in ids[0])
    assert len(set(ids[0] + ids[1])) == len(ids[0] + ids[1])


def test_drawing_brings_no_style_date_or_address_and_leaves_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawing = curves_svg([run("test")], "k", 'alt <&">')
    assert not re.search("<style|<metadata|http|<!DOCTYPE", drawing)
    assert drawing.startswith("<svg ")
    assert drawing.endswith("</svg>")
    assert 'aria-label="alt &lt;&amp;&quot;&gt;"' in drawing
    assert dict(mpl.rcParams) == before


def test_logarithmic_axis_is_written_in_plain_numbers() -> None:
    rate = run("learning rate", (0.1, 0.01, 0.001, 0.0), "learning rate")
    texts = re.findall(r">([^<>]+)</text>", curves_svg([rate], "k", "alt", log_y=True))
    assert {"0.1", "0.01", "0.001"} <= set(texts)


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize("y", [(), (5.0,), (0.0, 0.0), (float("nan"), 3.0), (2.0, float("inf")), (-1.0, -2.0)])
def test_short_and_odd_curves_are_drawn_without_complaint(y: tuple[float, ...], log_y: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert curves_svg([run("test", y)], "k", "alt", log_y=log_y).endswith("</svg>")


@given(st.lists(st.floats(-100, 100), max_size=8), st.floats(0.1, 20))
def test_written_values_keep_their_order_and_distance(places: list[float], gap: float) -> None:
    moved = spread(places, gap)
    assert all(after >= before for before, after in zip(places, moved, strict=True))
    assert all(b - a >= gap * 0.999 for a, b in itertools.pairwise(sorted(moved)))
    assert [moved[n] for n in sorted(range(len(places)), key=places.__getitem__)] == sorted(moved)


def test_values_that_are_far_apart_stay_where_they_are() -> None:
    assert spread([30.0, 0.0, 10.0], 10.0) == [30.0, 0.0, 10.0]


def test_up_to_ten_groups_differ_in_colour_or_marker_and_more_in_colour() -> None:
    ten, many = group_marks([f"g{n}" for n in range(10)]), group_marks([f"g{n % 40}" for n in range(80)])
    assert len(set(ten.values())) == 10
    assert len({colour for colour, _ in many.values()}) == len(many) == 40


def test_scatter_has_a_mark_a_point() -> None:
    scatter = Scatter("", (0.0, 1.0, 2.0, 5.0), (1.0, 0.0, 3.0, 5.0), ("a", "b", "a", "b"), "points")
    drawing = scatter_svg(scatter, "k")
    assert drawing.count("<use ") == 4
    assert "var(--series-2)" in drawing


def test_only_the_colours_of_the_theme_become_variables() -> None:
    assert with_variables(f"fill: {LIGHT['ink']}; stroke: #123456") == "fill: var(--ink); stroke: #123456"


def test_a_spread_is_a_band_along_a_curve_and_bars_at_marked_points() -> None:
    curve = Series("a", (1.0, 2.0, 3.0), (5.0, 4.0, 3.0), "epoch", "error [%]", spread=(1.0, 0.5, 0.2))
    marked = Series("b", (20.0, 56.0), (5.0, 9.0), "layers", "error [%]", spread=(1.0, 0.5), has_markers=True)
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_curves(axes, [curve])
    (band,) = axes.collections
    heights = {(x, y) for x, y in band.get_paths()[0].vertices.round(6).tolist()}
    assert {(1.0, 6.0), (1.0, 4.0), (3.0, 3.2), (3.0, 2.8)} <= heights

    axes = Figure().subplots()
    draw_curves(axes, [marked])
    (bars,) = axes.collections
    assert [path.vertices[:, 1].tolist() for path in bars.get_paths()] == [[4.0, 6.0], [8.5, 9.5]]
    assert list(axes.get_xticks()) == [20.0, 56.0]
    assert axes.lines[0].get_marker() == "o"


@pytest.mark.parametrize(("x_label", "top"), [("epoch", (4.0, 5.0)), ("layer", (90.0, 100.0))])
def test_the_start_of_a_training_may_leave_the_axis_and_no_layer_may(x_label: str, top: tuple[float, float]) -> None:
    from matplotlib.figure import Figure

    axes, y = Figure().subplots(), (90.0, 30.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0)
    draw_curves(axes, [Series("a", tuple(map(float, range(10))), y, x_label, "loss")])
    low, high = top
    assert low < axes.get_ylim()[1] < high


@pytest.mark.parametrize("log_y", [False, True])
def test_bars_end_within_the_axis(log_y: bool) -> None:
    from matplotlib.figure import Figure

    axes, y = Figure().subplots(), (20.0, 25.0, 30.0, 40.0)
    bars = Series("plain", (20.0, 32.0, 44.0, 56.0), y, "layers", "%", spread=(2, 1, 1, 30), has_markers=True)
    draw_curves(axes, [bars], log_y=log_y)
    assert axes.get_ylim()[1] > 70


def test_without_a_spread_nothing_is_drawn_around_a_curve() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_curves(axes, [run("a")])
    assert not axes.collections
