"""The report in a real browser: drawn, sorted, stepped through, offline."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report_browser import payloads
from tests.evaluation.report_browser.probes import CORNER, IS_PAINTED, WEAK_TEXT
from vidseg.evaluation.html_report.page import render

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
MORE = re.compile(r"\bmore\b")
DASH = "\N{EN DASH}"
SECTIONS = ["overview", "classes", "curves", "videos", "player"]
MAKERS = {
    each.__name__: each
    for each in (
        payloads.ordinary,
        payloads.empty,
        payloads.undefined,
        payloads.crowded,
        payloads.label_maps,
        payloads.upright,
    )
}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    files = {name: folder / f"{name}.html" for name in MAKERS}
    for name, file in files.items():
        file.write_text(render(MAKERS[name]()), encoding="utf-8")
    return files


@pytest.fixture
def open_page(open_file: Open, pages: dict[str, Path]) -> Open:
    """Opens a page by its name."""
    return lambda name, *arguments, **settings: open_file(pages[name], *arguments, **settings)


def column(page: Any, section: str, index: int) -> list[str]:
    cells = page.locator(f"#panel-{section} tbody tr > :nth-child({index})")
    return cells.all_inner_texts()


def canvases(page: Any) -> list[str]:
    return page.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")


def frame(page: Any) -> str:
    return page.locator(".frame-count").inner_text().split(" · ")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("name", list(MAKERS))
def test_every_section_fits_and_is_legible(
    open_page: Open, name: str, width: int, scheme: str
) -> None:
    page = open_page(name, width, color_scheme=scheme)
    sections = {
        "empty": SECTIONS[:1],
        "label_maps": ["overview", "videos", "player"],
        "upright": ["overview", "player"],
    }
    tabs = page.get_by_role("tab")
    assert [tab.get_attribute("id") for tab in tabs.all()] == [
        f"tab-{section}" for section in sections.get(name, SECTIONS)
    ]
    for tab in tabs.all():
        tab.click()
        assert tab.get_attribute("aria-selected") == "true"
        assert page.locator("main > section:visible").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        seen, weak = page.evaluate(WEAK_TEXT)
        assert seen
        assert weak == []
    assert page.evaluate("window.broken") is None


def test_hostile_names_are_shown_as_they_are(open_page: Open) -> None:
    page = open_page("crowded")
    assert page.title() == payloads.HOSTILE
    assert page.locator("h1").inner_text() == payloads.HOSTILE
    assert page.locator(".figures dt").last.text_content() == payloads.HOSTILE
    page.locator("#tab-videos").click()
    assert column(page, "videos", 2)[2] == payloads.HOSTILE
    assert page.locator("img, main script").count() == 0


def test_tables_sort_and_narrow(open_page: Open) -> None:
    page = open_page("ordinary", section="classes")
    head = page.locator("#panel-classes th", has_text="AP50").locator("visible=true")
    assert column(page, "classes", 2) == ["61.20", "41.20", "21.20", DASH]
    page.locator("#panel-classes thead button").nth(1).click()
    page.locator("#panel-classes thead button").nth(1).click()
    assert column(page, "classes", 2) == ["21.20", "41.20", "61.20", DASH]
    assert page.locator("#panel-classes thead th").nth(1).get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") == "none"
    page.locator("#panel-classes thead button").first.press("Enter")
    assert column(page, "classes", 1) == ["giant_panda", "never seen", "person", "skateboard"]
    widths = page.locator("#panel-classes .fill").evaluate_all("all => all.map(e => e.style.width)")
    assert widths == ["41.2%", "0%", "61.2%", "21.2%"]

    page = open_page("crowded", section="videos")
    page.get_by_role("searchbox").locator("visible=true").fill("0048")
    visible = page.locator("#panel-videos tbody tr:visible")
    assert visible.count() == 11
    assert page.locator("#panel-videos output").inner_text() == "11 of 500 rows"


def test_tables_tell_that_they_go_on(open_page: Open) -> None:
    box = open_page("ordinary", 420, section="classes").locator("#panel-classes .scroll")
    sync_api.expect(box).to_have_class(MORE)
    box.evaluate("box => box.scrollTo(1000, 0)")
    sync_api.expect(box).not_to_have_class(MORE)
    wide = open_page("ordinary", 1280, section="classes").locator("#panel-classes .scroll")
    sync_api.expect(wide).not_to_have_class(MORE)


def test_curves_are_read_off(open_page: Open) -> None:
    page = open_page("ordinary", section="curves")
    assert page.locator(".plot path.line").count() == 3
    before = page.locator(".plot path.line").first.get_attribute("d")
    assert column(page, "curves", 2) == ["83.12", "61.25", "48.12"]
    box = page.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + 41, box["y"] + 50)
    assert page.locator(".recall output").inner_text() == "0 %"
    assert column(page, "curves", 2) == ["95.00", "70.00", "55.00"]
    page.get_by_label("Recall in percent").press("ArrowRight")
    assert page.locator(".recall output").inner_text() == "1 %"
    page.get_by_label("Class", exact=True).select_option("person")
    assert page.locator(".plot path.line").first.get_attribute("d") != before


def test_ranking_opens_the_player(open_page: Open) -> None:
    page = open_page("ordinary", section="videos")
    assert page.locator("#panel-videos tbody button").count() == 2
    page.get_by_role("button", name="0001/street").click()
    assert page.locator("#tab-player").get_attribute("aria-selected") == "true"
    assert page.locator("#player-video").input_value() == "1"
    assert page.url.endswith("#player/1")
    assert page.evaluate("document.activeElement.id") == "panel-player"
    page.go_back()
    assert page.locator("#panel-videos").is_visible()


def test_stepping(open_page: Open) -> None:
    page = open_page("ordinary", section="player/1")
    start = canvases(page)
    assert frame(page) == "frame 0"
    page.get_by_role("button", name="Next frame").click()
    assert frame(page) == "frame 2"
    stepped = canvases(page)
    assert all(a != b for a, b in zip(start, stepped, strict=True))
    page.keyboard.press("ArrowLeft")
    assert canvases(page) == start
    page.keyboard.press("End")
    assert frame(page) == "frame 22"
    page.keyboard.press("Home")
    page.get_by_label("Frame", exact=True).press("ArrowRight")  # the slider takes the key itself
    assert frame(page) == "frame 2"
    page.locator("h1").click()
    page.keyboard.press("n")
    assert frame(page) == "frame 4"
    page.get_by_role("button", name="Play", exact=True).click()
    sync_api.expect(page.locator(".frame-count")).to_contain_text("frame 22")
    sync_api.expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_pictures_lie_under_the_masks(open_page: Open) -> None:
    page = open_page("ordinary", section="player/0")
    canvas = page.locator("canvas").first
    page.wait_for_function(IS_PAINTED, arg=canvas.element_handle())
    page.get_by_role("button", name="Next video").click()
    assert page.locator("canvas").first.evaluate(CORNER) == [0, 0, 0, 0]


def test_masks_have_the_colour_of_their_partner(open_page: Open) -> None:
    page = open_page("ordinary", section="player/1")
    with_numbers = canvases(page)
    page.get_by_label("numbers").uncheck()
    assert canvases(page) != with_numbers
    # Of a point within both discs, one beside them, and one within the prediction of no truth.
    read = """(canvas, points) => {
      const {width, height} = canvas;
      const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
      const scale = width / 160;
      const middle = (value) => Math.floor((value + 0.5) * scale);
      const first = ([x, y]) => 4 * (middle(y) * width + middle(x));
      return points.map((point) => [...pixels.slice(first(point), first(point) + 4)]);
    }"""
    points = [[22, 40], [100, 80], [33, 75]]
    truth, prediction = (
        page.locator("canvas").nth(side).evaluate(read, points) for side in range(2)
    )
    blue = [0, 114, 178]  # the first of the palette
    assert truth[0][:3] == prediction[0][:3] == pytest.approx(blue, abs=2)
    assert truth[0][3] > 200
    assert truth[1][3] == prediction[1][3] == truth[2][3] == 0
    assert prediction[2][3] > 0
    assert max(prediction[2][:3]) - min(prediction[2][:3]) < 20  # grey


@pytest.mark.parametrize("width", [1280, 420])
def test_pointer_finds_masks_of_an_upright_video(open_page: Open, width: int) -> None:
    page = open_page("upright", width, section="player")
    truth, prediction = (canvas.bounding_box() for canvas in page.locator("canvas").all())
    assert truth["height"] / truth["width"] == pytest.approx(160 / 60, rel=0.02)
    assert prediction["y"] == truth["y"]
    for x, named in ((0.6, "Truth 2: whole"), (0.75, "Truth 1: corner")):
        page.mouse.move(truth["x"] + x * truth["width"], truth["y"] + 0.9 * truth["height"])
        assert page.locator(".status").inner_text() == f"{named}, missed"


@pytest.mark.parametrize(("motion", "steps"), [("no-preference", 8), ("reduce", 2)])
def test_playing_heeds_the_wish_for_less_motion(open_page: Open, motion: str, steps: int) -> None:
    page = open_page("ordinary", section="player/1", reduced_motion=motion)
    page.clock.install(time=0)
    page.reload()
    page.clock.pause_at(60_000)  # from here on time goes by in steps alone
    page.get_by_role("button", name="Play", exact=True).click()
    assert page.locator(".status").get_attribute("aria-live") == "off"
    page.clock.run_for(1010)
    assert frame(page) == f"frame {2 * steps}"
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(1010)
    assert frame(page) == f"frame {2 * steps}"


def test_timeline_jumps(open_page: Open) -> None:
    page = open_page("ordinary", section="player/1")
    bar = page.locator(".states").first
    assert "found in 14 frames, switched in 6 frames, missed in 4 frames" in bar.get_attribute(
        "aria-label"
    )
    assert bar.locator(".state").all_inner_texts() == ["", "s", "", "m", ""]
    width = bar.bounding_box()["width"]
    bar.click(position={"x": width * 8.5 / 24, "y": 5})
    assert frame(page) == "frame 8"
    bar.click(position={"x": width * 19.5 / 24, "y": 5})
    assert frame(page) == "frame 18"
    assert "Frame 19 is not in this report; 18 is" in page.locator(".status").inner_text()


def test_tracks_are_toggled_and_named(open_page: Open) -> None:
    page = open_page("ordinary", section="player/1")
    truth, prediction = canvases(page)
    boxes = page.locator(".timeline").get_by_role("checkbox")
    boxes.first.uncheck()
    without = canvases(page)
    assert without[0] != truth
    assert without[1] == prediction
    boxes.first.check()
    page.locator("h1").click()
    assert canvases(page) == [truth, prediction]
    page.get_by_role("button", name="none").click()
    assert page.locator("canvas").nth(1).get_attribute("aria-label") == (
        "Prediction, frame 0: nothing"
    )
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_label("score at least").fill("0.6")
    checked = boxes.evaluate_all("all => all.map(box => box.checked)")
    assert checked == [True, True, True, True, True, False, False, False, False]
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 20 / 160, box["y"] + box["height"] * 40 / 90)
    assert page.locator(".status").inner_text() == "Truth 1: person 1, found"
    boxes.nth(1).focus()
    assert page.locator(".status").inner_text() == "Prediction 1: person, score 0.91, found"
    crowd = page.locator(".states").nth(4)
    assert crowd.get_attribute("aria-label") == "Truth 3: person 3 (crowd). found in 23 frames"
    crowd.hover(position={"x": crowd.bounding_box()["width"] - 2, "y": 5})
    assert page.locator(".status").inner_text().endswith("frame 23: not counted")
    chips = page.locator(".chip")
    assert chips.all_inner_texts() == ["1", "1", "2", "2", "3", "3", "3b", "p1", "p2"]
    colours = chips.evaluate_all("all => all.map(e => e.style.backgroundColor)")
    assert colours[0] == colours[1] != colours[2] == colours[3] != colours[4] == colours[5]
    assert colours[7] == colours[8] not in colours[:7]


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_moves_while_the_reader_looks(open_page: Open, width: int) -> None:
    page = open_page("crowded", width, section="player")
    before = page.locator(".timeline").bounding_box()
    for checkbox in (0, 1, 2):  # names that are markup, short and without end
        page.locator(".timeline input").nth(2 * checkbox).focus()
        page.keyboard.press("ArrowRight")
    page.locator(".states").first.click(position={"x": 100, "y": 5})
    page.evaluate("scrollTo(0, 0)")
    assert page.locator(".timeline").bounding_box() == before
    shifts = """new Promise((tell) => new PerformanceObserver((list) =>
      tell(list.getEntries().reduce((sum, entry) => sum + entry.value, 0))
    ).observe({type: "layout-shift", buffered: true}) || setTimeout(() => tell(0), 200))"""
    assert page.evaluate(shifts) < 0.01


def test_scheme_and_keys_of_the_tabs(open_page: Open) -> None:
    page = open_page("ordinary", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Scheme")
    button.click()
    assert page.evaluate(ground) == light
    button.click()
    assert page.evaluate(ground) != light
    page.locator("#tab-overview").press("ArrowRight")
    assert page.locator("#tab-classes").get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.id") == "tab-classes"
    page.keyboard.press("End")
    assert page.locator("#panel-player").is_visible()


def test_all_sections_are_printed(open_page: Open) -> None:
    page = open_page("ordinary", section="player/0")
    page.emulate_media(media="print")
    assert page.locator("main > section:visible").count() == len(SECTIONS)
    assert not page.get_by_role("tablist").is_visible()
    title = "getComputedStyle(document.querySelector('#panel-curves'), '::before').content"
    assert page.evaluate(title) == '"Precision\N{EN DASH}recall"'


def test_links_that_name_no_section_change_nothing(open_page: Open) -> None:
    page = open_page("ordinary", section="elsewhere")
    assert page.locator("main > section:visible").get_attribute("id") == "panel-overview"
    page.locator("#tab-videos").click()
    skip = page.get_by_role("link", name="Skip to content")
    skip.focus()
    assert skip.bounding_box()["x"] >= 0
    skip.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("main > section:visible").get_attribute("id") == "panel-videos"
