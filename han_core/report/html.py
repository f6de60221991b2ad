"""A document as one HTML page that needs nothing else: no request leaves it, no script runs in it."""

import base64
from html import escape
from pathlib import Path

from han_core.report.document import Block, Code, Document, Fold, Heading, Paragraph, Picture, Table

_STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--paper:#fff;--soft:#f2f3f5;--line:#d4d7dc;--mark:#0b5bd3}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#15171a;--soft:#21252a;--line:#3a4048;--mark:#7fb2ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:64rem;color:var(--ink);background:var(--paper);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;overflow-wrap:normal}
td{white-space:nowrap}
th:first-child,td:first-child{text-align:left;min-width:9rem;white-space:normal;overflow-wrap:anywhere}
thead th{background:var(--soft);vertical-align:bottom}
tbody tr:hover{background:var(--soft)}
figure{margin:1rem 0}figcaption{font-size:.9rem}
img,svg{max-width:100%;height:auto}.scroll>img,.scroll>svg{max-width:none}
pre{background:var(--soft);padding:.75rem;overflow-x:auto;font-size:.8rem;overflow-wrap:normal}
summary{cursor:pointer;color:var(--mark);padding:.25rem 0}
nav ul{columns:14rem;padding-left:1.2rem;margin:.5rem 0}a{color:var(--mark)}
""".replace("\n", "")


def write_html(document: Document, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_html(document), encoding="utf-8")


def render_html(document: Document) -> str:
    """The page as text."""
    title = escape(document.title)
    headings = [block.text for block in document.blocks if isinstance(block, Heading)]
    contents = "".join(f'<li><a href="#{_anchor(text)}">{escape(text)}</a></li>' for text in headings)
    body = "\n".join(_block(block) for block in document.blocks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # An icon of no bytes, because browsers ask the server for one where a page names none.
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<nav><ul>{contents}</ul></nav>\n{body}\n</body></html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{escape(text)}</h2>'
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Fold(summary, blocks):
            inner = "\n".join(_block(one) for one in blocks)
            return f"<details><summary>{escape(summary)}</summary>\n{inner}\n</details>"
    raise TypeError(f"{block!r} is not a block of a document")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = []
    for first, *others in table.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        rows.append(f"<tr><td>{escape(first)}</td>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{"".join(rows)}</tbody></table></div>'


def _picture(picture: Picture) -> str:
    if picture.kind == "svg":
        shown = picture.data.decode("utf-8").replace(
            "<svg ", f'<svg role="img" aria-label="{escape(picture.text)}" ', 1
        )
    else:
        data = base64.b64encode(picture.data).decode("ascii")
        shown = f'<img alt="{escape(picture.text)}" src="data:image/{picture.kind};base64,{data}">'
    return f'<figure><div class="scroll">{shown}</div></figure>' if picture.wide else f"<figure>{shown}</figure>"


def _anchor(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text.lower())
