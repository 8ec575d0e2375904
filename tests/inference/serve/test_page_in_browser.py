"""The page in a real browser: upload, result, overlay, a corrupt file's message, narrow screens, dark, the keyboard."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import DARK, LIGHT, QUICK, RED, Server, picture, served, slow_down
from small_exports import CLASSES, export

from residuum.inference.serve import app
from residuum.report.theme import DARK as DARK_COLOURS
from residuum.report.theme import LIGHT as LIGHT_COLOURS

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
PAGE = Path(app.__file__).parent / "page"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: object, server: Server) -> Iterator[object]:
    yield from opened(browser, server)


def opened(browser: object, server: Server, **options: object) -> Iterator[object]:
    """The page, which must ask no host but its own, and make no mistake."""
    context = browser.new_context(**options)
    found = context.new_page()
    asked, complaints = [], []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("console", lambda message: complaints.append(message.text) if "Security" in message.text else None)
    found.goto(server.url)
    found.locator(".card-of-model").wait_for()
    yield found
    assert complaints == []
    assert [url for url in asked if not url.startswith((server.url, "blob:", "data:"))] == []
    context.close()


def choose(page: object, *contents: bytes, kind: str = "image/png") -> None:
    names = [f"picture-{number}.png" for number in range(len(contents))]
    files = [{"name": name, "mimeType": kind, "buffer": content} for name, content in zip(names, contents, strict=True)]
    page.set_input_files("#files", files)


def answered(page: object, count: int = 1) -> object:
    page.locator(".classes:not([hidden])").nth(count - 1).wait_for()
    return page.locator(".card")


def test_an_image_is_classified_and_said(page: object) -> None:
    choose(page, RED)
    card = answered(page).first
    assert card.locator(".label").all_inner_texts() == ["red", "dark", "light"]
    assert card.locator(".probability").first.inner_text() == "100.0 %"
    assert re.search(r"computed in [\d.]+ ms", card.locator(".timing").inner_text())
    assert page.locator("[role=status]").inner_text() == "picture-0.png: red, 100.0 %."


def test_several_images_are_answered_in_their_order(page: object) -> None:
    choose(page, RED, LIGHT, DARK)
    cards = answered(page, 3)
    best = [cards.nth(number).locator(".label").first.inner_text() for number in range(3)]
    assert best == ["red", "light", "dark"]


def test_a_corrupt_file_has_its_message_and_the_others_their_answers(page: object) -> None:
    choose(page, LIGHT[:50], RED)
    cards = answered(page)
    assert cards.first.locator(".message").inner_text() == "The image cannot be used: truncated; send another image."
    assert cards.nth(1).locator(".label").first.inner_text() == "red"


def test_what_the_browser_cannot_show_is_classified_all_the_same(page: object) -> None:
    choose(page, picture((250, 4, 4), "TIFF"), kind="image/tiff")
    card = answered(page).first
    assert card.locator(".label").first.inner_text() == "red"
    assert "cannot show" in card.locator(".picture").inner_text()


def test_the_map_lies_on_the_square_that_the_model_sees(page: object) -> None:
    choose(page, picture(size=(300, 200)))
    card = answered(page).first
    box, shown = card.locator(".map").bounding_box(), card.locator("img").bounding_box()
    assert box["height"] == pytest.approx(shown["height"], abs=1)
    assert box["width"] == pytest.approx(shown["height"], abs=1)
    assert box["x"] + box["width"] / 2 == pytest.approx(shown["x"] + shown["width"] / 2, abs=1)


def test_another_class_has_another_map_by_the_keyboard(page: object) -> None:
    choose(page, LIGHT)
    card = answered(page).first
    alpha = "(card) => card.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data[3]"
    card.locator(".map").wait_for()
    assert card.evaluate(alpha) == 255
    second = card.locator(".classes button").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    assert card.locator("[aria-pressed=true]").all_inner_texts()[0].startswith(second.inner_text()[:3])
    assert card.locator(".classes button").first.get_attribute("aria-pressed") == "false"
    page.wait_for_function(f"({alpha})(document.querySelector('.card')) === 0")


def test_the_slider_says_how_much_the_map_covers(page: object) -> None:
    choose(page, LIGHT)
    card = answered(page).first
    canvas = card.locator("canvas")
    assert canvas.evaluate("(node) => getComputedStyle(node).opacity") == "0.6"
    page.get_by_label("Activation map").focus()
    page.keyboard.press("Home")
    assert canvas.evaluate("(node) => getComputedStyle(node).opacity") == "0"
    assert page.locator("output").inner_text() == "0 %"


def test_images_can_be_dropped_and_pasted(page: object) -> None:
    script = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        dispatchEvent(kind === "drop" ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }));
    }"""
    for count, kind in enumerate(("drop", "paste"), start=1):
        page.evaluate(script, [kind, list(DARK)])
        cards = answered(page, count)
        assert cards.first.locator(".label").first.inner_text() == "dark"
        assert cards.first.locator("figcaption").inner_text() == "pasted image"


def test_the_model_card_is_shown(page: object) -> None:
    text = page.locator(".card-of-model dl").inner_text()
    assert "photos" in text
    assert "91.5" in text
    assert "8 x 8 pixels in colour" in text


def test_everything_has_a_name_for_a_screen_reader(page: object) -> None:
    choose(page, RED)
    answered(page)
    controls = page.locator("button:visible, input:not([hidden]), select:visible")
    for number in range(controls.count()):
        control = controls.nth(number)
        if control.evaluate("(node) => node.closest('[hidden]') !== null"):
            continue
        name = control.evaluate(
            "(node) => node.textContent.trim() || [...(node.labels || [])].map((l) => l.textContent).join('')"
        )
        assert name.strip(), control.evaluate("(node) => node.outerHTML")
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_narrow_screen_shows_everything_without_scrolling_sideways(
    browser: object, server: Server, colours: str
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": colours}
    for page in opened(browser, server, **phone):
        assert page.get_by_text("Take a photo").is_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"
        choose(page, picture(size=(900, 200)), LIGHT[:50])
        answered(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_dark_is_as_the_system_has_it_and_can_be_changed(browser: object, server: Server) -> None:
    for page in opened(browser, server, color_scheme="dark"):
        background = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(background) == rgb(DARK_COLOURS["paper"])
        page.get_by_role("button", name="Light colours").click()
        assert page.evaluate(background) == rgb(LIGHT_COLOURS["paper"])
        page.reload()
        assert page.evaluate(background) == rgb(LIGHT_COLOURS["paper"])


def rgb(colour: str) -> str:
    return f"rgb({', '.join(map(str, bytes.fromhex(colour[1:])))})"


def test_the_colours_are_those_of_the_reports() -> None:
    style = (PAGE / "page.css").read_text()
    for theme in (LIGHT_COLOURS, DARK_COLOURS):
        for name in ("paper", "surface", "ink", "muted", "line", "accent"):
            assert f"--{name}: {theme[name]};" in style


@pytest.mark.parametrize(("colours", "behind"), [(LIGHT_COLOURS, "surface"), (DARK_COLOURS, "surface")])
def test_words_stand_out_from_what_is_behind_them(colours: dict[str, str], behind: str) -> None:
    for front in ("ink", "muted", "accent"):
        assert contrast(colours[front], colours[behind]) >= 4.5, front


def contrast(one: str, other: str) -> float:
    """WCAG 2, relative luminance."""
    lights = []
    for colour in (one, other):
        shares = [byte / 255 for byte in bytes.fromhex(colour[1:])]
        linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_several_models_can_be_chosen(browser: object, tiny: Path, tmp_path: Path) -> None:
    plain = export(tmp_path / "plain", classes=(*CLASSES, "blue"), features=False)
    with served(tiny, plain) as server:
        for page in opened(browser, server):
            page.get_by_label("Model", exact=True).select_option("plain")
            assert page.get_by_text("This model gives no activation maps.").count() == 1
            choose(page, RED)
            assert answered(page).first.locator(".label").count() == 4
            assert page.locator(".map:visible").count() == 0
            assert page.locator(".without-maps").is_visible()


def test_the_key_is_asked_for_and_kept_in_the_tab(browser: object, tiny: Path) -> None:
    with served(tiny, key="correct-horse-battery") as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("API key").fill("correct-horse-battery")
        page.keyboard.press("Enter")
        page.locator(".card-of-model").wait_for()
        choose(page, RED)
        assert answered(page).first.locator(".label").first.inner_text() == "red"
        page.reload()
        page.locator(".card-of-model").wait_for()
        page.close()


def test_at_a_busy_server_the_page_waits_and_asks_again(browser: object, tiny: Path) -> None:
    with served(tiny, settings=replace(QUICK, requests=1)) as server:
        for page in opened(browser, server):
            slow = slow_down(server)
            choose(page, RED, LIGHT)
            page.get_by_text("The server is busy; asking again in 1 s.").wait_for()
            slow.go.set()
            cards = answered(page, 2)
            assert [cards.nth(number).locator(".label").first.inner_text() for number in range(2)] == ["red", "light"]
