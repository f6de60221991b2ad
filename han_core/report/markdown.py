"""A document as Markdown, its pictures and clips as files beside it."""

from pathlib import Path

from han_core.report.confusion import confusion_chart
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
    files,
)


def write_markdown(document: Document, path: Path) -> None:
    """Write the text to ``path`` and the pictures and clips into its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for block in files(document.blocks):
        (path.parent / block.name).write_bytes(_file(block))
    parts = [f"# {_escaped(document.title)}", *(_block(block) for block in document.blocks)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_escaped(text)}"
        case Paragraph(text):
            return _escaped(text)
        case Headline(figures):
            return "\n".join(f"- {_escaped(f'{one.what}: {one.value}. {one.about}')}" for one in figures)
        case Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
        case Picture(name=name, text=text) | Matrix(name=name, text=text):
            return f"![{_escaped(text)}]({name})"
        case Video(name=name, text=text):
            return f"[{_escaped(text)}]({name})"
        case Code(text):
            return f"```\n{text.rstrip()}\n```"
        case Fold(summary, blocks):
            return "\n\n".join([f"**{_escaped(summary)}**", *(_block(inner) for inner in blocks)])
    raise TypeError(f"{block!r} is not a block of a document")


def _escaped(text: str) -> str:
    """Names of clips and classes hold underscores, bars and angle brackets that Markdown would take for its own."""
    for sign in "\\|<*_[]`#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _file(block: Picture | Video | Matrix) -> bytes:
    """A file of its own follows no page: an SVG is black on white."""
    data = confusion_chart(block.counts, block.classes) if isinstance(block, Matrix) else block.data
    if isinstance(block, Video) or (isinstance(block, Picture) and block.kind != "svg"):
        return data
    return data.replace(b"<svg ", b'<svg style="color:#111;background:#fff" ', 1)
