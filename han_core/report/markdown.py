"""A document as Markdown, its pictures as files beside it."""

from pathlib import Path

from han_core.report.document import Block, Code, Document, Fold, Heading, Paragraph, Picture, Table, pictures


def write_markdown(document: Document, path: Path) -> None:
    """Write the text to ``path`` and the pictures into its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for picture in pictures(document.blocks):
        (path.parent / picture.name).write_bytes(_on_paper(picture))
    parts = [f"# {_escaped(document.title)}", *(_block(block) for block in document.blocks)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_escaped(text)}"
        case Paragraph(text):
            return _escaped(text)
        case Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
        case Picture(name=name, text=text):
            return f"![{_escaped(text)}]({name})"
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


def _on_paper(picture: Picture) -> bytes:
    """A file of its own follows no page: black on white."""
    if picture.kind != "svg":
        return picture.data
    return picture.data.replace(b"<svg ", b'<svg style="color:#111;background:#fff" ', 1)
