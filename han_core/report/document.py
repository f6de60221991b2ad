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
class Figure:
    """One figure of a headline."""

    what: str
    value: str
    about: str


@dataclass(frozen=True)
class Headline:
    """The few figures to be seen first."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Table:
    """Rows of plain text under a header. The first column names the row, the others are figures or words.

    Raises:
        ValueError: a row is not as long as the header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[int] = ()
    """Columns whose figures, 0 to 100, are drawn as bars too."""
    words: Sequence[int] = ()
    """Columns that hold words, not figures, beside the first."""
    anchor: str = ""
    """Where links lead to; "" where none does."""

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
class Video:
    """A playing clip, MP4, of its own file name; HTML carries it inside, Markdown links to the file."""

    name: str
    data: bytes
    text: str
    """What it shows."""
    width: int
    height: int
    clip: str = ""
    """What the clip is called in tables of clips."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: rows the true class, columns the predicted one. Markdown shows it as an SVG file."""

    name: str
    """Of the file."""
    counts: Sequence[Sequence[int]]
    """C rows of C or C + 1 numbers; the last of C + 1 counts clips without a prediction."""
    classes: Sequence[str]
    text: str
    clips: str = ""
    """Anchor of the table of the clips that were counted, in whose columns "Class" and "Predicted" a cell's clips can
    be found; "" where there is none."""


@dataclass(frozen=True)
class Code:
    """Text to be shown letter by letter."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line to click at."""

    summary: str
    blocks: "Sequence[Block]"


Block = Heading | Paragraph | Headline | Table | Picture | Video | Matrix | Code | Fold


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def files(blocks: Sequence[Block]) -> list[Picture | Video | Matrix]:
    """All blocks that are files beside the Markdown, those in folds too, in order."""
    found: list[Picture | Video | Matrix] = []
    for block in blocks:
        if isinstance(block, Picture | Video | Matrix):
            found.append(block)
        elif isinstance(block, Fold):
            found += files(block.blocks)
    return found
