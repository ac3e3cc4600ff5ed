"""The page in a real browser: it draws, fits, answers to keys, runs nothing that is not its own, loads nothing."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image, ImageStat
from report_case import HOSTILE, full_result

from pargo_export.bench.records import BenchResult
from pargo_export.report import write_report

READY = "html[data-ready=true]"
DRAWN = "svg.main-svg"
A4_PIXELS = 718  # within margins of 1 cm


@dataclass
class Opened:
    """A page, and what it should not have done: messages, errors, requests for anything but itself."""

    page: Any
    complaints: list[str]


@pytest.fixture(scope="module")
def full(browser, full_report):
    """The full report, opened once: loading plotly.js takes most of the time."""
    with _open(browser, full_report) as opened:
        yield opened


@pytest.fixture
def page(full):
    """The full report at 1280 pixels, light, at its top; no test may leave a complaint."""
    full.page.set_viewport_size({"width": 1280, "height": 900})
    full.page.emulate_media(color_scheme="light")
    full.page.evaluate(
        """() => {
            delete document.documentElement.dataset.theme;
            scrollTo(0, 0);
            document.body.tabIndex = -1; // the first Tab starts from the top
            document.body.focus();
            document.body.removeAttribute("tabindex");
        }"""
    )
    yield full.page
    assert full.complaints == []


@pytest.fixture(scope="module")
def hostile(browser, quantized_bundle, tmp_path_factory):
    """A report in which subjects, machine, model and a warning are attacks."""
    written = full_result(quantized_bundle).model_dump_json()
    for name in ("int8-cpu on openvino", "Example CPU 9000", "ParGo, EVA-02", "CPU 1 was busy"):
        assert name in written
        written = written.replace(name, json.dumps(HOSTILE)[1:-1])
    path = tmp_path_factory.mktemp("hostile") / "hostile.html"
    write_report(BenchResult.model_validate_json(written), quantized_bundle, path)
    with _open(browser, path) as opened:
        yield opened


def test_a_full_report_is_drawn_fits_and_follows_the_theme(page):
    """Every plot is drawn, at 1280, 768 and 360 pixels nothing overflows, and dark is dark."""
    plots = page.locator("[data-plot]")
    assert plots.count() == 12
    for index in range(plots.count()):
        plot = plots.nth(index)
        plot.scroll_into_view_if_needed()
        plot.locator(DRAWN).first.wait_for()
        assert plot.locator(".canvas").get_attribute("role") == "img"
        assert len(plot.locator(".canvas").get_attribute("aria-label")) > 20
    for width in (1280, 768, 360):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)  # plots follow the size
        assert _overflowing(page) == [], width
    page.evaluate("scrollTo(0, 0)")
    light = _brightness(page)
    page.emulate_media(color_scheme="dark")
    assert light > 200
    assert _brightness(page) < 60
    page.get_by_role("button", name="Light theme").click()
    assert _brightness(page) > 200
    font = page.locator(f"#ratios {DRAWN} text").first.evaluate("e => getComputedStyle(e).fill")
    page.get_by_role("button", name="Dark theme").click()
    assert page.locator(f"#ratios {DRAWN} text").first.evaluate("e => getComputedStyle(e).fill") != font


def test_the_keyboard_reaches_everything(page):
    """The skip link comes first, every control gets the focus, arrow keys walk through the tokens."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).left") != "-999px"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    unreachable = page.evaluate(
        "[...document.querySelectorAll('button, select, input, summary, a, .scroll')]"
        ".filter(e => e.tabIndex < 0 || !(e.textContent.trim() || e.labels?.length || e.ariaLabel"
        " || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"
    )
    assert unreachable == []
    slider, readout = page.locator("[data-photo] input[type=range]"), page.locator(".readout")
    slider.focus()
    assert readout.text_content() == "Partial token 9 of 18 sees 2 of 36 patches: row 3, columns 0 to 1."
    page.keyboard.press("ArrowRight")
    assert readout.text_content() == "Partial token 10 of 18 sees 2 of 36 patches: row 3, columns 2 to 3."
    assert page.locator(".photo .edge").get_attribute("d") == "M2 3h1v1h-1zM3 3h1v1h-1z"
    page.keyboard.press("End")
    assert readout.text_content() == "Global token 3 of 4 sees all 36 patches."
    page.locator(".photo .view").click(position={"x": 2, "y": 2})
    assert readout.text_content().startswith("Partial token 0 of 18")


def test_choices_and_legend_change_the_plot(page):
    """Another batch is another drawing with another text; the legend hides; what was not measured is said."""
    plot = page.locator("#ecdf")
    plot.scroll_into_view_if_needed()
    plot.locator(DRAWN).first.wait_for()
    label = plot.locator(".canvas").get_attribute("aria-label")
    assert plot.locator(".scatterlayer .trace").count() == 4
    plot.get_by_role("button", name="PyTorch eager").click()
    assert plot.locator(".scatterlayer .trace").count() == 3
    plot.get_by_label("Batch").select_option("4 images")
    assert plot.locator(".canvas").get_attribute("aria-label") != label
    assert plot.locator(".scatterlayer .trace").count() == 3
    plot.get_by_label("Concurrency").select_option("2 callers")
    assert plot.locator(".canvas").text_content() == "This combination was not measured."
    plot.get_by_label("Batch").select_option("1 image")
    assert plot.locator(".scatterlayer .trace").count() == 1


def test_printing_shows_every_plot_and_table_on_white(page):
    """Before printing, what is folded opens and every plot is drawn in light colours; afterwards all is as before."""
    page.emulate_media(color_scheme="dark")
    folded = page.locator("details:not([open])").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("[data-plot]:not(:has(svg.main-svg))").count() == 0
    assert _brightness(page) > 200
    widths = page.evaluate("[...document.querySelectorAll('.canvas .main-svg')].map(e => e.clientWidth)")
    assert max(widths) <= A4_PIXELS
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == folded > 0
    assert _brightness(page) < 60


def test_text_of_the_data_is_never_executed(hostile):
    """Script in names and warnings is shown as text, in tables and in plots, and fits."""
    page = hostile.page
    page.locator("#histogram").scroll_into_view_if_needed()
    page.locator(f"#histogram {DRAWN}").first.wait_for()
    assert page.title().startswith(f"Benchmark: {HOSTILE}")
    assert HOSTILE in page.locator("#headline").text_content()
    assert page.locator("img[onerror], a[href^='//'], svg a").count() == 0
    assert HOSTILE[:30] in page.locator("#histogram .canvas").text_content()  # plotly.js knows links
    assert _overflowing(page) == []
    assert hostile.complaints == []


def test_the_policy_stops_foreign_scripts_and_connections(hostile):
    """Even a script that got into the page does not run, and nothing can be fetched."""
    blocked = hostile.page.evaluate(
        """async () => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const box = document.createElement("div");
            box.innerHTML = '<img src="x:" onerror="window.ran = true">';
            document.body.append(box);
            const answers = [];
            for (const address of ["data:,hello", "http://127.0.0.1:9/"]) {
                answers.push(await fetch(address).then(() => "answered", (error) => error.name));
            }
            return [window.ran === undefined, ...answers];
        }"""
    )
    assert blocked == [True, "TypeError", "TypeError"]
    assert any("Content Security Policy" in complaint for complaint in hostile.complaints)


@contextmanager
def _open(browser, path):
    """Open a report and wait until its plots can be drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = Opened(page, [])
    address = path.as_uri()
    page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
    page.on(
        "request", lambda sent: None if _is_own(sent.url, address) else opened.complaints.append(sent.url)
    )
    page.goto(address)
    page.wait_for_selector(READY, state="attached")
    assert page.locator("#problem").is_hidden(), page.locator("#problem").text_content()
    yield opened
    page.close()


def _is_own(url: str, address: str) -> bool:
    return url.partition("#")[0] == address or url.startswith("data:")


def _overflowing(page) -> list[str]:
    """What is wider than the page, but for what lies in a box that scrolls."""
    return page.evaluate(
        """() => {
            const limit = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= limit) return [];
            return ["page", ...[...document.querySelectorAll("main *")]
                .filter((e) => !e.closest(".scroll") && e.getBoundingClientRect().right > limit + 1)
                .map((e) => e.outerHTML.slice(0, 120))];
        }"""
    )


def _brightness(page) -> float:
    """Mean brightness of what is seen, 0 to 255; what is blank is refused."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
    statistics = ImageStat.Stat(picture)
    assert statistics.stddev[0] > 10, "the page is blank"
    return float(statistics.median[0])
