"""The report in a real browser without a window: it needs no server and no network, fits a phone and a desk, turns
dark, and does what its script says. One page for all tests, because another takes a second."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from han_core.clips import read_clips
from han_core.predictions import write_predictions
from pipeline.report import __main__ as report
from tests.pipeline.toy_results import CLASSES, write_results

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
LONG = "extraordinarilylongname"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def absent(reason):
    """These tests are skipped where there is no browser, and fail where HAN_BROWSER_TESTS says that there must be."""
    if os.environ.get("HAN_BROWSER_TESTS"):
        pytest.fail(f"HAN_BROWSER_TESTS is set, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    """The first Chromium on the path (or ``$HAN_TEST_BROWSER``), driven by playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed (extra `test`)")
    program = os.environ.get("HAN_TEST_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        absent(f"no browser is found: none of {', '.join(BROWSERS)} is on the path, and HAN_TEST_BROWSER is not set")
    with sync_playwright() as running:
        launched = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_path(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_results(folder, repository)
    tested = [clip.key for clip in read_clips(folder / "data/toy/clips.csv").select(1, "test")]
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    write_predictions(folder / "data/toy/predictions/han-1-seed1/han.csv", tested, CLASSES, chances)
    pairs = "hand_shake,hand_shake hand_shake,hand_shake kick,hand_shake kick,kick"
    (folder / "plots/toy/confusion/han.csv").write_text("\n".join(["actual,predicted", *pairs.split(), ""]))
    path = folder / "metrics/toy/evaluate.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(figures | {f"{LONG}_{LONG}": figures["linear"]}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(report.main, [])
        assert result.exit_code == 0, result.output
    # Away from its pictures: the page must carry them.
    (folder / "alone").mkdir()
    return shutil.copy(folder / "report/toy/report.html", folder / "alone")


@pytest.fixture(scope="module")
def page(browser, page_path):
    """The page; every message of its console and every address that it asks for is noted."""
    # Clips stand still, so that this machine has not to play them all the time.
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.messages, page.asked = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda sent: page.asked.append(sent.url))
    page.goto(f"file://{page_path}")
    yield page
    context.close()


@pytest.fixture(scope="module", params=[("light", PHONE), ("dark", PHONE), ("light", DESK)], ids=str)
def looked_at(request, page):
    """The page with all that is folded open; only looked at."""
    scheme, size = request.param
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    # What watches sizes is told before the next picture but one.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page


@pytest.fixture
def used(page):
    """The page as it was, to click and type in."""
    page.set_viewport_size(DESK)
    page.reload()
    return page


def cells(page, table):
    """Texts of the rows that are shown, as lists."""
    return page.evaluate(
        "t => [...document.querySelectorAll(`${t} tbody tr`)].filter(row => !row.hidden)"
        ".map(row => [...row.cells].map(cell => cell.textContent))",
        table,
    )


def luminance(colour):
    """0 (black) to 255 of ``rgb(..)``."""
    red, green, blue = (float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return 0.3 * red + 0.59 * green + 0.11 * blue


def test_it_fits_the_screen_and_says_where_columns_are_out_of_sight(looked_at):
    width = looked_at.viewport_size["width"]
    assert looked_at.evaluate("document.documentElement.scrollWidth") <= width
    beyond = looked_at.evaluate(
        """() => [...document.body.querySelectorAll('*')]
            .filter(e => !e.closest('.scroll, pre, script') || e.matches('.scroll, pre'))
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.tagName)"""
    )
    assert beyond == []
    cued = looked_at.evaluate(
        """() => [...document.querySelectorAll('.table')].map(box => [
            box.querySelector('.scroll').scrollWidth > box.querySelector('.scroll').clientWidth + 2,
            getComputedStyle(box.querySelector('.cue')).visibility === 'visible'])"""
    )
    assert all(cut == told for cut, told in cued)
    assert any(cut for cut, _ in cued) == (width == PHONE["width"])


def test_no_word_of_a_table_is_broken(looked_at):
    broken = looked_at.evaluate(
        r"""() => [...document.querySelectorAll('td, th')].flatMap(cell => {
            const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
            for (let node; (node = walker.nextNode());)
                for (const word of node.data.matchAll(/[A-Za-z]+/g)) {
                    const range = document.createRange();
                    range.setStart(node, word.index);
                    range.setEnd(node, word.index + word[0].length);
                    const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
                    if (lines.size > 1) found.push(word[0]);
                }
            return found;
        })"""
    )
    assert broken == []


def test_dark_mode_changes_the_colours_of_text_and_charts(looked_at):
    dark = looked_at.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = luminance(looked_at.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper < 60) == dark
    for part in ("p", ".headline .about", "svg.lines text", ".matrix .cells text", ".tools button"):
        style = looked_at.evaluate(
            "s => { const e = document.querySelector(s), style = getComputedStyle(e);"
            " return e.closest('svg') ? style.fill : style.color; }",
            part,
        )
        assert abs(luminance(style) - paper) > 120, part


def test_pictures_and_clips_can_be_decoded(looked_at):
    sizes = looked_at.evaluate(
        "() => Promise.all([...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
    )
    assert sizes == [[3 * 171, 3 * 128]] * 2
    looked_at.wait_for_function("[...document.querySelectorAll('video')].every(video => video.readyState > 1)")
    clips = looked_at.evaluate("[...document.querySelectorAll('video')].map(v => [v.duration, v.videoWidth])")
    assert clips == [[pytest.approx(6 / 25, abs=0.05), 2 * 256]] * 2
    assert looked_at.evaluate("document.querySelectorAll('svg.lines').length") == 3  # fine-tuning; HAN's loss and top-1


def test_it_asks_for_nothing_but_itself_and_complains_of_nothing(looked_at, page_path):
    """Last of those that look: clips have been decoded."""
    assert {url for url in looked_at.asked if not url.startswith("data:")} == {f"file://{page_path}"}
    assert looked_at.messages == []


def test_the_pages_policy_lets_nothing_out(used):
    assert used.evaluate("fetch('https://example.org/').then(() => 'fetched', () => 'refused')") == "refused"
    assert any("example.org" in said and "Content Security Policy" in said for said in used.messages)


def test_a_table_is_sorted_by_a_click_numbers_as_numbers_and_what_is_missing_last(used):
    table = "#predictions-han"
    before = cells(used, table)
    used.click(f"{table} th:nth-child(4) button")
    assert [row[3] for row in cells(used, table)] == ["2", "1", "1", "1"]
    used.click(f"{table} th:nth-child(4) button")
    assert [row[3] for row in cells(used, table)] == ["1", "1", "1", "2"]
    used.click(f"{table} th:nth-child(4) button")
    assert cells(used, table) == before
    used.click(".table th:nth-child(2) button")  # Table 1: 50.0, 25.0 and three that are missing
    assert [row[1] for row in cells(used, ".table")][:3] == [
        "50.0 (2 / 4)",
        "25.0 (1 / 4)",
        "missing",
    ]
    mixed = ["100.0 (4 / 4)", "9.75", "-", "9.8 ± 1.0", "1,000"]
    assert used.evaluate("texts => texts.sort((a, b) => compare(a, b, 1))", mixed) == [
        "9.75",
        "9.8 ± 1.0",
        "100.0 (4 / 4)",
        "1,000",
        "-",
    ]
    assert used.get_attribute(".table th:nth-child(2)", "aria-sort") == "descending"


def test_what_is_typed_filters_and_what_is_shown_is_copied(used):
    box = "#predictions-han"
    used.fill(f"{box} input", "KICK_ 4")  # a clip's name and, in per cent, a probability
    assert [row[0] for row in cells(used, box)] == ["kick_2"]
    used.fill(f"{box} input", "hand_shake kick_")
    assert [row[0] for row in cells(used, box)] == ["kick_1", "kick_2"]
    assert "2 of 4 rows" in used.inner_text(f"{box} .said")
    used.click(f"{box} button:text('Copy CSV')")
    used.wait_for_selector(f"{box} .said:text('copied, 2 rows')")
    copied = list(csv.reader(io.StringIO(used.evaluate("navigator.clipboard.readText()"))))
    assert copied[0] == ["Clip", "Class", "Predicted", "rank of its class", "top 5, %"]
    assert copied[1] == ["kick_1", "kick", "hand_shake", "2", "hand_shake 70, kick 30"]
    assert len(copied) == 3
    used.click(f"{box} button:text('Copy LaTeX')")
    used.wait_for_function("navigator.clipboard.readText().then(text => text.includes('tabular'))")
    latex = used.evaluate("navigator.clipboard.readText()").splitlines()
    assert latex[0] == "\\begin{tabular}{lrrrr}"
    assert latex[2] == "Clip & Class & Predicted & rank of its class & top 5, \\% \\\\"
    assert latex[4] == "kick\\_1 & kick & hand\\_shake & 2 & hand\\_shake 70, kick 30 \\\\"
    assert latex[-1] == "\\end{tabular}"


def test_a_cell_of_the_confusion_opens_its_clips_with_those_that_play(used):
    opened = used.locator(".matrix .opened").first
    for predicted, clip, playing in (("hand_shake", "kick_1", 0), ("kick", "kick_2", 1)):  # report.clips has kick_2
        used.click(f".matrix a[data-class=kick][data-predicted={predicted}]")
        assert opened.locator("b").first.inner_text() == f"kick taken for {predicted}: 1 of 2"
        assert [text.split(" · ")[0].strip() for text in opened.locator("li").all_inner_texts()] == [clip]
        assert opened.locator("video").count() == playing
    assert "kick 60, hand_shake 40" in opened.locator("li").inner_text()


def test_values_are_told_under_the_pointer(used):
    used.hover(".matrix a[data-class=kick][data-predicted=hand_shake] rect")
    assert used.inner_text(".tip") == "kick taken for hand_shake: 1 of 2"
    chart = used.locator("svg.lines").nth(1)
    chart.hover(position={"x": 60, "y": 60})
    assert used.inner_text(".tip").splitlines() == ["epoch 1", "han: 2", "no_attention: 2"]


def test_without_its_script_all_of_it_is_there_to_read(browser, page_path):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"file://{page_path}")
    text = page.inner_text("body")
    for said in ("Best row", "50.0 %", "guessing among 2 classes", "hand_shake 70, kick 30", "Most confused by han"):
        assert said in text
    assert page.locator("video[controls]").count() == 2
    page.click(".matrix a[data-class=kick][data-predicted=hand_shake]")
    assert page.url.endswith("#predictions-han")
