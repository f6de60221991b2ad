"""One document, written as HTML and as Markdown."""

import re
from html.parser import HTMLParser

import pytest

from han_core.report.charts import line_chart
from han_core.report.document import Code, Document, Fold, Heading, Paragraph, Picture, Table, files
from han_core.report.html import render_html
from han_core.report.markdown import write_markdown

JPEG = b"\xff\xd8\xff not a whole one"
SVG = b'<svg viewBox="0 0 1 1"><path stroke="currentColor" d="M0 0"/></svg>'
DOCUMENT = Document(
    "clips <&> things",
    [
        Heading("Table 1"),
        Paragraph("a_b * c | d <e>"),
        Table(["Model", "top-1"], [["x|y", "92.7"], ["<b>", "-"]]),
        Picture("one.jpg", JPEG, "jpeg", 'said "so"', wide=True),
        Fold("more", [Picture("two.svg", SVG, "svg", "a line"), Code("k: <v>\n")]),
    ],
)


VOID = {"meta", "link", "img", "path", "rect", "wbr"}


class Balanced(HTMLParser):
    """Fails where a tag is closed that was not opened last."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_well_formed_and_shows_text_as_it_is():
    page = Balanced()
    page.feed(render_html(DOCUMENT))
    assert page.open == []
    shown = "".join(page.text)
    for text in ("clips <&> things", "a_b * c | d <e>", "x|y", "<b>", "k: <v>"):
        assert text in shown


def test_html_carries_its_pictures_and_asks_for_nothing_else():
    page = render_html(DOCUMENT)
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith(("data:", "#"))
    assert "url(" not in page
    assert page.count("<script>") == 1
    assert "data:image/jpeg;base64,/9j/" in page
    assert 'aria-label="a line"' in page


def test_every_entry_of_the_contents_leads_somewhere():
    page = render_html(Document("t", [Heading("Table 1"), Heading("Where HAN looked (figure 4)")]))
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page


def test_markdown_shows_the_same_and_puts_pictures_beside_it(tmp_path):
    write_markdown(DOCUMENT, tmp_path / "r" / "report.md")
    text = (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert "| x\\|y | 92.7 |" in text
    assert "a\\_b \\* c \\| d \\<e>" in text
    assert "```\nk: <v>\n```" in text
    assert (tmp_path / "r/one.jpg").read_bytes() == JPEG
    assert b"background:#fff" in (tmp_path / "r/two.svg").read_bytes()
    assert [p.name for p in files(DOCUMENT.blocks)] == re.findall(r"\]\((.+?)\)", text) == ["one.jpg", "two.svg"]


def test_a_row_must_have_as_many_cells_as_the_header():
    with pytest.raises(ValueError, match="3 cells under a header of 2"):
        Table(["a", "b"], [["1", "2", "3"]])


def test_a_chart_is_the_same_twice_and_follows_the_colour_of_the_page():
    charts = [line_chart({"han": {1: 2.0, 2: 1.0, 4: 0.5}}, x_label="epoch", y_label="loss") for _ in range(2)]
    assert charts[0] == charts[1]
    assert charts[0].startswith(b"<svg ")
    assert b"currentColor" in charts[0]
    for colour in (b"#000000", b"#010203", b"<metadata"):
        assert colour not in charts[0]
    assert b">epoch<" in charts[0]
    assert b">han<" in charts[0]
