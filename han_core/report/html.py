"""A document as one HTML page that needs nothing else: no request leaves it. A script of its own (``page.js``) sorts,
filters and copies; without it all content is there to read. The page's policy lets the browser run that script alone
and fetch nothing."""

import base64
import hashlib
import re
from html import escape
from importlib.resources import files
from pathlib import Path

from han_core.report.confusion import confusion_parts
from han_core.report.document import (
    Block,
    Code,
    Document,
    Fold,
    Heading,
    Headline,
    Matrix,
    Paragraph,
    Picture,
    Table,
    Video,
)

_LONG = 30  # rows from which a table scrolls in a box of its own
_HUGE = 300  # rows from which it must be spared what is slow


def write_html(document: Document, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_html(document), encoding="utf-8")


def render_html(document: Document) -> str:
    """The page as text."""
    title = escape(document.title)
    style, script = (files("han_core.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    )
    headings = [block.text for block in document.blocks if isinstance(block, Heading)]
    contents = "".join(f'<li><a href="#{_anchor(text)}">{escape(text)}</a></li>' for text in headings)
    first = next((n for n, block in enumerate(document.blocks) if isinstance(block, Heading)), len(document.blocks))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # An icon of no bytes, because browsers ask the server for one where a page names none.
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head>\n'
        f"<body><h1>{title}</h1>\n{_blocks(document.blocks[:first])}\n<nav><ul>{contents}</ul></nav>\n"
        f"{_blocks(document.blocks[first:])}\n<script>{script}</script></body></html>\n"
    )


def _blocks(blocks: "list[Block] | tuple[Block, ...]") -> str:
    """Charts that follow each other stand side by side where there is room."""
    parts, charts = [], []
    for block in [*blocks, None]:
        if isinstance(block, Picture) and block.kind == "svg" and not block.wide:
            charts.append(_block(block))
            continue
        if charts:
            parts.append(f'<div class="charts">{"".join(charts)}</div>')
            charts = []
        if block is not None:
            parts.append(_block(block))
    return "\n".join(parts)


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{escape(text)}</h2>'
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Headline(figures):
            cards = "".join(
                f'<div><dt>{escape(one.what)}</dt><dd class="value">{escape(one.value)}</dd>'
                f'<dd class="about">{_words(one.about)}</dd></div>'
                for one in figures
            )
            return f'<dl class="headline">{cards}</dl>'
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)
        case Video():
            return _video(block)
        case Matrix():
            return _matrix(block)
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Fold(summary, blocks):
            return f"<details><summary>{escape(summary)}</summary>\n{_blocks(list(blocks))}\n</details>"
    raise TypeError(f"{block!r} is not a block of a document")


def _table(table: Table) -> str:
    kinds = ["words" if column in table.words else "" for column in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{_class(kind)}>{_words(cell)}</th>' for cell, kind in zip(table.header, kinds, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for column, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
            if column in table.bars and (share := _share(cell)) is not None:
                cells.append(f'<td class="bar" style="--share:{share:g}%">{escape(cell)}</td>')
            elif column and not kind:
                cells.append(f"<td>{escape(cell)}</td>")
            else:
                name = f"{kind} name" if kind and " " not in cell else kind
                cells.append(f"<td{_class(name)}>{_words(cell)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    anchor = f' id="{escape(table.anchor)}"' if table.anchor else ""
    size = "table huge" if len(table.rows) > _HUGE else "table long" if len(table.rows) > _LONG else "table"
    return (
        f'<div class="{size}"{anchor}><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _share(cell: str) -> float | None:
    """The figure of a cell as the length of its bar."""
    found = re.match(r"\d+(\.\d+)?", cell)
    return min(float(found[0]), 100.0) if found else None


def _words(text: str) -> str:
    """Escaped text that may break between the words of a name (``left_hand``, ``LeftHand``), never inside one; several
    names break at the blanks between them."""
    if " " in text:
        return escape(text)
    return re.sub(r"(?<=[_/])(?=\w)|(?<=\w-)(?=\w)|(?<=[a-z]{2})(?=[A-Z][a-z])", "<wbr>", escape(text))


def _picture(picture: Picture) -> str:
    if picture.kind == "svg":
        shown = picture.data.decode("utf-8").replace(
            "<svg ", f'<svg role="img" aria-label="{escape(picture.text)}" ', 1
        )
    else:
        shown = f'<img alt="{escape(picture.text)}" src="{_data(f"image/{picture.kind}", picture.data)}">'
    wide = f'<div class="scroll" tabindex="0">{shown}</div>' if picture.wide else shown
    return f"<figure>{wide}</figure>"


def _video(video: Video) -> str:
    clip = f' data-clip="{escape(video.clip)}"' if video.clip else ""
    return (
        f'<figure{clip}><video controls loop muted playsinline width="{video.width}" height="{video.height}" '
        f'aria-label="{escape(video.text)}" src="{_data("video/mp4", video.data)}"></video>'
        f"<figcaption>{escape(video.text)}</figcaption></figure>"
    )


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _matrix(matrix: Matrix) -> str:
    over, beside, cells = confusion_parts(matrix.counts, matrix.classes, matrix.clips)
    shown = [
        over.svg('class="over" aria-hidden="true" '),
        beside.svg('class="beside" aria-hidden="true" '),
        cells.svg(f'class="cells" role="group" aria-label="{escape(matrix.text)}" '),
    ]
    return (
        '<figure class="matrix"><div class="scroll" tabindex="0"><div class="grid"><span class="corner"></span>'
        f'{"".join(shown)}</div></div><div class="opened" aria-live="polite"></div></figure>'
    )


def _anchor(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text.lower())
