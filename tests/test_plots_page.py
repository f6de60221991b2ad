"""The page of `dvc plots show` is drawn without a network: it holds the scripts that DVC's own would load."""

import configparser

import pytest
from dvc_render import render_html
from dvc_render.vega import VegaRenderer

from tests.pipeline.report.test_browser import browser  # noqa: F401  (a fixture)

CURVE = [{"step": n, "loss": 1 / n, "rev": "workspace"} for n in (1, 2, 3)]
CLASSES = [
    {"model": model, "class": name, "top1": top1, "rev": "workspace"}
    for model in ("han", "linear")
    for name, top1 in (("jump", 0.5), ("wave", 1.0))
]


@pytest.fixture(scope="module")
def page_path(repository, tmp_path_factory):
    settings = configparser.ConfigParser()
    settings.read(repository / ".dvc/config")
    template = repository / ".dvc" / settings["plots"]["html_template"]
    plots = [
        VegaRenderer(CURVE, "loss.tsv", x="step", y="loss"),
        VegaRenderer(
            CLASSES, "per_class.csv", x="top1", y="class", template="per_class", template_dir=repository / ".dvc/plots"
        ),
    ]
    return render_html(plots, tmp_path_factory.mktemp("plots") / "page" / "index.html", template)


def test_it_asks_for_no_script(page_path):
    text = page_path.read_text(encoding="utf-8")
    assert text.count("vegaEmbed('#") == 2
    assert "<script src" not in text
    assert "<link" not in text


def test_its_plots_are_drawn_offline(browser, page_path):  # noqa: F811
    page = browser.new_page()
    page.context.set_offline(True)
    asked, wrong = [], []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"file://{page_path}")
    page.wait_for_function("document.querySelectorAll('.vega-embed canvas, .vega-embed svg').length >= 2")
    assert wrong == []
    assert asked == [f"file://{page_path}"]
    assert page.query_selector_all(".vega-embed summary"), "the menu of Vega-Embed"
    page.close()
