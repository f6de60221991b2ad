"""What a report is made of. A document is a list of blocks; ``html.py`` and ``markdown.py`` write it down."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of plain text under a header. The first column names the row, the others are figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row has {len(row)} cells under a header of {len(self.header)}: {row}")


@dataclass(frozen=True)
class Picture:
    """A picture of its own file name; HTML carries it inside, Markdown shows the file."""

    name: str
    data: bytes
    kind: Literal["jpeg", "png", "svg"]
    """An SVG draws in ``currentColor`` on no background, so that it follows the page."""
    text: str
    """What it shows, for those who cannot see it."""
    wide: bool = False
    """Keep its size and let it scroll sideways on a narrow page, because shrunk it would show nothing."""


@dataclass(frozen=True)
class Code:
    """Text to be shown letter by letter."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line to click at."""

    summary: str
    blocks: "Sequence[Block]"


Block = Heading | Paragraph | Table | Picture | Code | Fold


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def pictures(blocks: Sequence[Block]) -> list[Picture]:
    """All pictures, those in folds too, in order."""
    found: list[Picture] = []
    for block in blocks:
        if isinstance(block, Picture):
            found.append(block)
        elif isinstance(block, Fold):
            found += pictures(block.blocks)
    return found
