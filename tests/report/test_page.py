"""Pages: whole, safe with foreign text, the same every time, and readable by a browser, an eye and a screen reader."""

import base64
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
    Section,
    Series,
    Table,
)
from residuum.report.cells import cell_texts
from residuum.report.matrices import confused_pairs, matrix_cells
from residuum.report.names import isolated
from residuum.report.page import page_html

VOID = {"meta", "link", "img", "input", "br", "wbr"}
FOREIGN = "<script>alert('&\")</script>"


def series(name: str, label: str = "error [%]") -> Series:
    return Series(name, (1.0, 2.0, 3.0), (60.0, 12.5, 8.41), "epoch", label, is_training=name == "training")


def confusion(classes: int) -> Matrix:
    names = tuple(f"class {number}" for number in range(classes))
    values = np.random.default_rng(0).poisson(2, (classes, classes)) + np.diag(np.full(classes, 50))
    return Matrix(f"Confusion of {classes}", names, names, values)


def picture(side: int) -> Picture:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    return Picture(pixels, f"noise, {side} pixels", "taken for a cat at 97.6 %")


EVERYTHING: tuple[Part, ...] = (
    "A paragraph.\n\nAnother.",
    Measurements(
        (
            ("top-1 error", Measurement(8.41, "%", 7.88, 8.97), "1-crop 32"),
            ("loss", Measurement(0.3113, "nats"), ""),
            ("diverged", Measurement(float("nan"), "%", float("nan"), float("nan")), ""),
        )
    ),
    Table("Per class", ("class", "images", "share [%]"), (("cat", 1000, 8.25), ("dog", 12, None)), ("A note.",)),
    Chart("Curves", ((series("training"), series("test")), (series("rate", "rate"),)), "error falls", log_y=True),
    Chart("The same", ((series("training"), series("test")),), "error falls"),
    confusion(2),
    confusion(30),
    Scatter("Features", (0.0, 1.0, 2.0), (1.0, 0.0, 3.0), ("a", "b", "a"), "two groups"),
    Gallery("Mistakes", (picture(32), picture(300)), "Two of them."),
    Gallery("Rows", (picture(8), picture(32)) * 9, columns=9),
    Table("Wide and long", tuple(f"a column {n}" for n in range(40)), (tuple("x" * 9 for _ in range(40)),) * 200),
    Scatter("Long names", (0.0, 1.0), (1.0, 0.0), ("long_" * 60, "n" * 200), "two points"),
)


def page_of(*parts: Part, title: str = "A run", refresh: int = 0) -> Page:
    sections = (Section("First", parts), Section("Second", ("Text.",)))
    return Page(title, "in short", sections, refresh)


class Reading(HTMLParser):
    """The elements of a page, in order; a tag that closes another than the last one opened is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.text.setdefault(self._open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> Iterator[str]:
        return (attributes[attribute] for _, attributes in self.elements if attribute in attributes)


@pytest.fixture(scope="module")
def html() -> str:
    return page_html(page_of(*EVERYTHING))


@pytest.fixture(scope="module")
def reading(html: str) -> Reading:
    return Reading(html)


def test_page_is_well_formed_and_says_what_it_is(html: str, reading: Reading) -> None:
    assert html.lstrip().startswith("<!DOCTYPE html>")
    assert reading.all("html") == [{"lang": "en"}]
    assert reading.text["title"] == ["A run"]
    assert any(meta.get("name") == "viewport" for meta in reading.all("meta"))


def test_headings_descend_one_level_at_a_time_below_a_single_first(reading: Reading) -> None:
    levels = [int(tag[1]) for tag, _ in reading.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_page_has_landmarks_a_skip_link_and_a_list_of_its_sections(reading: Reading) -> None:
    for landmark in ("header", "nav", "main", "footer"):
        assert len(reading.all(landmark)) == 1
    links = [link["href"] for link in reading.all("a")]
    assert links == ["#main", "#section-1", "#section-2"]
    assert {link[1:] for link in links} <= set(reading.values("id"))


def test_ids_are_unique_and_whatever_points_to_one_finds_it(html: str, reading: Reading) -> None:
    ids = list(reading.values("id"))
    assert len(ids) == len(set(ids))
    pointed = {label["for"] for label in reading.all("label")}
    pointed |= {use["xlink:href"][1:] for use in reading.all("use")} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert pointed
    assert pointed <= set(ids)


def test_nothing_is_loaded_from_anywhere(html: str, reading: Reading) -> None:
    assert not re.search("https?:|@import|javascript:", html)
    for attribute in ("src", "href", "xlink:href"):
        assert all(value.startswith(("#", "data:")) for value in reading.values(attribute))
    (policy,) = (meta["content"] for meta in reading.all("meta") if "Policy" in meta.get("http-equiv", ""))
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_no_element_handles_events_inline(reading: Reading) -> None:
    assert not [name for _, attributes in reading.elements for name in attributes if name.startswith("on")]


def test_every_picture_and_chart_is_described(reading: Reading) -> None:
    assert {image["alt"] for image in reading.all("img")} == {f"noise, {side} pixels" for side in (8, 32, 300)}
    drawings = [svg for svg in reading.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(drawings) == 2 * 2 + 1 + 2
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)


def test_the_same_page_is_the_same_text(html: str) -> None:
    assert page_html(page_of(*EVERYTHING)) == html


def test_foreign_text_is_shown_and_never_obeyed() -> None:
    point = Series(FOREIGN, (1.0,), (1.0,), FOREIGN, FOREIGN)
    pixels = np.zeros((2, 2, 1), np.uint8)
    parts: tuple[Part, ...] = (
        FOREIGN,
        Table(FOREIGN, (FOREIGN, "n"), ((FOREIGN, 1),), (FOREIGN,)),
        Measurements(((FOREIGN, Measurement(1.0, FOREIGN), FOREIGN),)),
        Matrix(FOREIGN, (FOREIGN,), (FOREIGN,), np.ones((1, 1), np.int64), FOREIGN, FOREIGN),
        Chart(FOREIGN, ((point, point),), FOREIGN),
        Scatter(FOREIGN, (0.0,), (0.0,), (FOREIGN,), FOREIGN),
        Gallery(FOREIGN, (Picture(pixels, FOREIGN, FOREIGN),), FOREIGN),
    )
    html = page_html(Page(FOREIGN, FOREIGN, (Section(FOREIGN, parts), Section(FOREIGN, ()))))
    assert len(Reading(html).all("script")) == 1
    assert "alert" in html
    assert FOREIGN not in html


def test_a_name_that_is_no_character_can_be_written() -> None:
    page_html(page_of("name \udcff")).encode("utf-8")


def test_refresh_is_asked_for_only_when_it_is_wanted() -> None:
    def refreshes(seconds: int) -> list[str]:
        metas = Reading(page_html(page_of(refresh=seconds))).all("meta")
        return [meta["content"] for meta in metas if meta.get("http-equiv") == "refresh"]

    assert refreshes(0) == []
    assert refreshes(20) == ["20"]


def test_an_empty_page_and_empty_records_are_pages() -> None:
    nothing = np.zeros((1, 1), np.int64)
    chart = Chart("", ((Series("test", (), (), "epoch", "error [%]"),),), "nothing yet", log_y=True)
    empty = (Table("", ("a", "b"), ()), Gallery("", ()), Measurements(()), Matrix("", ("a",), ("a",), nothing), chart)
    Reading(page_html(page_of(*empty, Scatter("", (), (), (), "none"), "")))
    assert "<nav" not in page_html(Page("", "", ()))


def test_percentages_have_two_decimals_and_numbers_stand_right(html: str) -> None:
    assert '<td class="number">8.25</td>' in html
    assert '<td class="number">1,000</td>' in html
    assert '<th scope="row">cat</th>' in html
    assert "8.41 <span" in html
    assert "interval 7.88 to 8.97" in html


def test_every_float_of_a_table_in_percent_has_two_decimals() -> None:
    rows = (("cat", 3, 7.0, 0.5), ("dog", 4, 9.25, None))
    table = Table("Per class, in %", ("class", "images", "recall", "F1"), rows)
    assert cell_texts(table) == [["cat", "3", "7.00", "0.50"], ["dog", "4", "9.25", "-"]]
    assert cell_texts(replace(table, title="test, in % but the loss"))[0] == ["cat", "3", "7.0000", "0.5000"]


def test_what_all_tiles_say_in_small_print_stands_once() -> None:
    tiles = Measurements(tuple((name, Measurement(8.0, "%"), "1-crop 32") for name in ("a", "b", "c")))
    assert page_html(page_of(tiles)).count("1-crop 32") == 1
    others = replace(tiles, items=(*tiles.items, ("d", Measurement(8.0, "%"), "10-crop 32")))
    assert page_html(page_of(others)).count("1-crop 32") == 3


def test_intervals_of_one_measure_share_a_scale_and_others_have_none() -> None:
    items = (("a", Measurement(2.0, "%", 1.0, 3.0), ""), ("b", Measurement(8.0, "%", 7.0, 11.0), ""))
    assert 'class="track"' not in page_html(page_of(Measurements(items)))
    tiles = Measurements(items, one_scale=True)
    marks = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", page_html(page_of(tiles)))
    (left_a, width_a), (left_b, width_b) = ((float(left), float(width)) for left, width in marks)
    assert width_b == pytest.approx(2 * width_a, abs=0.2)
    assert left_b - left_a == pytest.approx(3 * width_a, abs=0.2)


def test_tiny_pictures_are_exact_and_enlarged_by_a_whole_factor_photographs_are_jpeg(reading: Reading) -> None:
    tiny, photo, *_ = reading.all("img")
    kind, _, content = tiny["src"].partition(";base64,")
    assert kind == "data:image/png"
    with Image.open(BytesIO(base64.b64decode(content))) as image:
        np.testing.assert_array_equal(np.asarray(image), picture(32).pixels)
    assert (tiny["class"], tiny["width"], tiny["height"]) == ("pixels", "128", "128")
    assert photo["src"].startswith("data:image/jpeg")
    assert "class" not in photo


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(32, 66, (128, 264)), (28, 28, (112, 112)), (96, 300, (96, 300)), (7, 7, (63, 63)), (3, 3, (63, 63))],
)
def test_a_tiny_picture_grows_by_its_height_however_wide_it_is(height: int, width: int, shown: tuple[int, int]) -> None:
    gallery = Gallery("", (Picture(np.zeros((height, width, 3), np.uint8), "black"),))
    (image,) = Reading(page_html(page_of(gallery))).all("img")
    assert image["src"].startswith("data:image/png")
    assert (int(image["height"]), int(image["width"])) == shown


def test_pictures_that_belong_in_a_row_stay_in_it(reading: Reading) -> None:
    galleries = [box for box in reading.all("div") if "gallery" in box.get("class", "").split()]
    assert [("rows" in box["class"].split(), box["style"].endswith("--columns:9")) for box in galleries] == [
        (False, False),
        (True, True),
    ]


@pytest.mark.parametrize(("rows", "said"), [(80, 0), (81, 1)])
def test_a_table_that_has_to_be_scrolled_says_so(rows: int, said: int) -> None:
    html = page_html(page_of(Table("Classes", ("class",), (("cat",),) * rows)))
    assert html.count('class="scroll tall"') == html.count(f"{rows} rows, scroll") == said


@pytest.mark.parametrize(("groups", "named"), [(20, 20), (21, 0)])
def test_a_scatter_plot_names_its_groups_while_they_can_be_told_apart(groups: int, named: int) -> None:
    names = tuple(f"group {number}" for number in range(groups))
    html = page_html(page_of(Scatter("", (0.0,) * groups, (0.0,) * groups, names, "points")))
    assert html.count("<bdi>group ") == named
    assert (f">{groups} classes<" in html) is (not named)


def test_the_name_of_a_field_breaks_at_its_dots_alone() -> None:
    html = page_html(page_of(Table("", ("field", "value"), (("<a>.lr", "a.b"),))))
    assert '<th scope="row">&lt;a&gt;.<wbr>lr</th><td>a.b</td>' in html
    html = page_html(page_of(Table("", ("arm", "value"), (("momentum, 0.05", 1),))))
    assert '<th scope="row">momentum, 0.05</th>' in html


def levels(text: str) -> list[int]:
    """How deep each character stands in isolates and overrides; an isolate that ends ends what began within it."""
    opened: list[str] = []
    found = []
    for character in text:
        if character in "\u2068\u202e":
            opened.append(character)
        elif character == "\u2069" and "\u2068" in opened:
            while opened.pop() != "\u2068":
                pass
        found.append(len(opened))
    return found


@pytest.mark.parametrize("name", ["\u202egnp.tac", "\u05d7\u05ea\u05d5\u05dc", "a\u2069\u202eb", "\u2069\u2069\u202e"])
def test_a_name_that_turns_the_direction_of_writing_does_so_for_itself_alone(name: str) -> None:
    told = isolated(name)
    assert name in told
    sentence = f"said {told} (97 %)"
    assert levels(sentence)[sentence.index(told) + len(told) :] == [0] * len(" (97 %)")


@pytest.mark.parametrize("name", ["photos/cat 1.png", "Kätzchen", "\u732b", "", "\udcff"])
def test_a_name_written_from_left_to_right_stays_as_it_is(name: str) -> None:
    assert isolated(name) == name


@pytest.mark.parametrize(("classes", "cells", "numbered"), [(2, 4, True), (20, 400, True), (21, 441, False)])
def test_matrix_has_a_cell_a_pair_and_a_number_in_each_while_there_is_room(
    classes: int, cells: int, numbered: bool
) -> None:
    html = page_html(page_of(confusion(classes)))
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    assert body.count("<td") == cells
    assert body.count('class="right"') == classes
    assert ('class="scroll matrix dense"' in html) is not numbered
    assert ("most confused pairs" in html) is not numbered


def test_matrix_of_a_thousand_classes_becomes_its_most_confused_pairs() -> None:
    html = page_html(page_of(confusion(1000)))
    assert html.count("<td") < 200
    assert "The 30 most confused pairs" in html


def test_most_confused_pairs_are_off_the_diagonal_and_most_first() -> None:
    values = np.array([[9, 3, 0], [5, 90, 3], [0, 0, 0]])
    table = confused_pairs(Matrix("", ("a", "b", "c"), ("a", "b", "none"), values))
    assert table.rows == (("b", "a", 5, 100 * 5 / 98), ("a", "b", 3, 25.0), ("b", "none", 3, 100 * 3 / 98))
    assert len(confused_pairs(confusion(9), most=4).rows) == 4


def test_shade_is_the_cube_root_of_the_share_of_the_row_and_right_means_the_same_class() -> None:
    matrix = Matrix("", ("a", "b", "unknown"), ("a", "b", "none"), np.array([[3, 1, 0], [0, 0, 0], [0, 0, 2]]))
    cells = matrix_cells(matrix)
    assert [cell.shade for cell in cells[0]] == pytest.approx([0.75 ** (1 / 3), 0.25 ** (1 / 3), 0.0])
    assert [cell.shade for cell in cells[1]] == [0.0, 0.0, 0.0]
    assert [[cell.right for cell in row] for row in cells] == [[True, False, False], [False, True, False], [False] * 3]


def luminance(rgb: np.ndarray) -> float:
    """WCAG 2.2, relative luminance; rgb: (3,) in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: np.ndarray, second: np.ndarray) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def themes(html: str) -> list[dict[str, np.ndarray]]:
    blocks = re.findall(r"color-scheme: (?:light|dark);([^}]*)}", html)
    hexes = [dict(re.findall(r"--([\w-]+): #([0-9a-f]{6});", block)) for block in blocks]
    return [{name: np.array(list(bytes.fromhex(c))) / 255 for name, c in block.items()} for block in hexes]


def test_text_stands_out_from_its_paper_in_both_themes(html: str) -> None:
    found = themes(html)
    assert len(found) == 3  # light; dark because the system is; dark because the reader wants it
    for theme in found:
        series_colours = [colour for name, colour in theme.items() if name.startswith("series")]
        for paper in (theme["paper"], theme["surface"]):
            assert all(contrast(theme[name], paper) >= 4.5 for name in ("ink", "muted", "accent"))
        assert all(contrast(colour, theme["paper"]) >= 4.5 for colour in series_colours)


def test_numbers_stand_out_from_the_strongest_shade_of_a_cell(html: str) -> None:
    strengths = [float(share) for share in re.findall(r"calc\(([.\d]+) \* var\(--shade\)\)", html)]
    assert len(strengths) == 2
    for theme in themes(html):
        for colour, strength in zip((theme["series-1"], theme["series-2"]), strengths, strict=True):
            assert contrast(theme["ink"], strength * colour + (1 - strength) * theme["surface"]) >= 4.5


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>addEventListener("load", () => {
  const cell = document.querySelector(".matrix tbody").rows[0].cells[2];
  cell.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
  const tip = document.querySelector(".tip").textContent;
  const before = getComputedStyle(document.body).backgroundColor;
  document.querySelector(".theme").click();
  const after = getComputedStyle(document.body).backgroundColor;
  const root = document.documentElement;
  const frames = [...document.querySelectorAll(".frame")];
  const shadows = frames.map((frame) => [frame.innerText.split("\\n")[0], frame.className]);
  const probe = { tip, shadows, themes: [before, after], wide: root.scrollWidth, room: root.clientWidth };
  console.log("PROBE" + JSON.stringify(probe));
});</script></body>"""


def browse(folder: Path, file: str) -> tuple[str, list[str]]:
    """The page as the browser has it after its scripts ran, and what it wrote to the console."""
    assert BROWSER is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
    logging = ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"]
    command = [BROWSER, *flags, *logging, (folder / file).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")
def test_browser_has_nothing_to_complain_of(html: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    seen, console = browse(tmp_path, "page.html")
    assert console == []
    assert '<button type="button" class="theme">' in seen  # its own script was allowed to run


@pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_its_window_answers_the_pointer_and_changes_its_theme(width: int, html: str, tmp_path: Path) -> None:
    probed = re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", html).replace("</body>", PROBE)
    (tmp_path / "page.html").write_text(probed, encoding="utf-8")
    # A browser's window is never as narrow as a phone; a frame is.
    frame = f"<iframe src='page.html' style='border: 0; width: {width}px; height: 844px'></iframe>"
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    (line,) = browse(tmp_path, "frame.html")[1]
    probe: dict[str, Any] = json.loads(line[line.index("PROBE") + 5 : line.rindex('", source')])
    assert probe["room"] == width
    assert probe["wide"] == width
    assert probe["tip"].startswith("true class 0, predicted class 1\n")
    assert probe["tip"].endswith(" %)")
    assert probe["themes"][0] != probe["themes"][1]
    shadows = {kind for text, kind in probe["shadows"] if text.startswith("a column 0")}
    assert shadows == {"frame more-right more-below"}
    assert "frame" in {kind for _, kind in probe["shadows"]}  # and what is there in full has none


def test_a_chart_over_powers_of_ten_opens_logarithmic() -> None:
    group = (series("gradient"),)
    opened = [
        re.findall(r'id="[^"]*-(linear|logarithmic)" checked', page_html(page_of(Chart("", (group,), "", True, first))))
        for first in (False, True)
    ]
    assert opened == [["linear"], ["logarithmic"]]
