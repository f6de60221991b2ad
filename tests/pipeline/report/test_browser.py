"""The report in a real browser without a window: it needs no server and no network, fits a phone, and turns dark."""

import os
import shutil

import pytest
from click.testing import CliRunner

from pipeline.report import __main__ as report
from tests.pipeline.toy_results import write_results

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    """The first Chromium on the path (or ``$HAN_TEST_BROWSER``), driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `browser`)")
    program = os.environ.get("HAN_TEST_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)} is on the path, and HAN_TEST_BROWSER is not set")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_path(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_results(folder, repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(report.main, [])
        assert result.exit_code == 0, result.output
    # Away from its pictures: the page must carry them.
    (folder / "alone").mkdir()
    return shutil.copy(folder / "report/toy/report.html", folder / "alone")


@pytest.fixture(params=["light", "dark"])
def opened(request, browser, page_path):
    """The page on a phone, every message of its console and every address that it asked for."""
    page = browser.new_page(viewport=PHONE, color_scheme=request.param)
    page.messages, page.asked = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda sent: page.asked.append(sent.url))
    page.goto(f"file://{page_path}")
    yield page
    page.close()


def test_it_asks_for_nothing_but_itself_and_complains_of_nothing(opened, page_path):
    assert [url for url in opened.asked if not url.startswith("data:")] == [f"file://{page_path}"]
    assert opened.messages == []


def test_it_fits_a_phone(opened):
    for details in opened.query_selector_all("details"):
        details.evaluate("fold => fold.open = true")
    assert opened.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    beyond = opened.evaluate(
        """() => [...document.body.querySelectorAll('*')]
            .filter(e => !e.closest('.scroll, pre') || e.matches('.scroll, pre'))
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.tagName)"""
    )
    assert beyond == []


def test_its_pictures_can_be_decoded(opened):
    sizes = opened.evaluate(
        "() => [...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight]))"
        ".reduce((all, one) => all.then(list => one.then(size => [...list, size])), Promise.resolve([]))"
    )
    assert sizes == [[3 * 171, 3 * 128]] * 2
    pictures = opened.evaluate("() => [...document.querySelectorAll('figure > svg, .scroll > svg')].length")
    assert pictures == 5  # loss of fine-tuning, loss and top-1 of HAN, two confusion matrices


def luminance(colour):
    """0 (black) to 255 of ``rgb(..)``."""
    red, green, blue = (float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return 0.3 * red + 0.59 * green + 0.11 * blue


def test_dark_mode_changes_the_colours_of_text_and_charts(opened):
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = luminance(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
    ink = luminance(opened.evaluate("getComputedStyle(document.querySelector('p')).color"))
    chart = luminance(opened.evaluate("getComputedStyle(document.querySelector('figure > svg text')).fill"))
    assert (paper < 60) == dark
    for colour in (ink, chart):
        assert abs(colour - paper) > 120
