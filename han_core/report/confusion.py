"""A confusion matrix as SVG: whole, or in three parts, of which a page keeps the names in sight while cells scroll."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_FEW = 20  # classes up to which cells are large
_LETTER = 6.3  # pixels, a generous mean of a sans-serif's at 11 pixels
_LONGEST = 30  # letters of a name; of longer ones the middle is left out
RIGHT, WRONG = "#2a7fde", "#e0691f"
"""Right answers and mistakes: they differ in lightness too, and can be told on light and on dark paper."""


@dataclass(frozen=True)
class Part:
    """Elements of an SVG and the size that they need, in pixels."""

    elements: str
    width: float
    height: float

    def svg(self, attributes: str = "") -> str:
        """As a picture of its own."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}width="{self.width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" font-family="sans-serif" font-size="11" '
            f'fill="currentColor">{self.elements}</svg>'
        )


def confusion_chart(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """The whole matrix: rows the true class, columns the predicted one, fuller the larger its share of the row.

    Args:
        counts: C rows of C or C + 1 numbers; the last of C + 1 columns counts clips without a prediction.
        classes: C names.
    """
    columns, rows, cells = confusion_parts(counts, classes)
    placed = (
        f'<g transform="translate({rows.width:g} 0)">{columns.elements}</g>'
        f'<g transform="translate(0 {columns.height:g})">{rows.elements}</g>'
        f'<g transform="translate({rows.width:g} {columns.height:g})">{cells.elements}</g>'
    )
    return Part(placed, rows.width + cells.width, columns.height + cells.height).svg().encode("utf-8")


def confusion_parts(
    counts: Sequence[Sequence[int]], classes: Sequence[str], target: str = ""
) -> tuple[Part, Part, Part]:
    """The names over the columns, those beside the rows, and the cells.

    Args:
        counts, classes: as of :func:`confusion_chart`.
        target: anchor on the page that every cell leads to; "" makes them no links.
    """
    labels = [*classes, "(failed)"][: len(counts[0])]
    cell = 28 if len(classes) <= _FEW else 20
    margin = _LETTER * min(max(map(len, labels)), _LONGEST) + 10
    middle = cell / 2 + 4
    over = "".join(
        f'<text transform="translate({n * cell + middle:g} {margin - 5:g}) rotate(-90)">{_name(name)}</text>'
        for n, name in enumerate(labels)
    )
    beside = "".join(
        f'<text x="{margin - 5:g}" y="{n * cell + middle:g}" text-anchor="end">{_name(name)}</text>'
        for n, name in enumerate(classes)
    )
    inside = []
    for row, numbers in enumerate(counts):
        total = sum(numbers)
        for column, count in enumerate(numbers):
            if count:
                description = f"{classes[row]} taken for {labels[column]}: {count} of {total}"
                drawn = _cell(row, column, cell, count, count / total, description)
                if target:
                    drawn = (
                        f'<a href="#{escape(target)}" aria-label="{escape(description)}" '
                        f'data-class="{escape(classes[row])}" data-predicted="{escape(labels[column])}">{drawn}</a>'
                    )
                inside.append(drawn)
    wide, high = len(labels) * cell, len(classes) * cell
    lines = "".join(f"M0 {n * cell + 0.5:g}H{wide}" for n in range(len(classes) + 1)) + "".join(
        f"M{n * cell + 0.5:g} 0V{high}" for n in range(len(labels) + 1)
    )
    grid = f'<path d="{lines}" fill="none" stroke="currentColor" stroke-opacity=".13"/>'
    return (
        Part(over, wide + 1, margin),
        Part(beside, margin, high + 1),
        Part(grid + "".join(inside), wide + 1, high + 1),
    )


def _cell(row: int, column: int, side: int, count: int, share: float, description: str) -> str:
    x, y = column * side, row * side
    small = f' font-size="{min(11.0, 1.5 * side / len(str(count))):.3g}"'  # or it would not fit into the cell
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{RIGHT if row == column else WRONG}" '
        f'fill-opacity="{0.15 + 0.6 * share:.3f}"><title>{escape(description)}</title></rect>'
        f'<text x="{x + side / 2:g}" y="{y + side / 2 + 4:g}" text-anchor="middle" pointer-events="none"{small}>'
        f"{count}</text>"
    )


def _name(name: str) -> str:
    """At most ``_LONGEST`` letters, the whole name as a title where some are left out."""
    if len(name) <= _LONGEST:
        return escape(name)
    half = (_LONGEST - 1) // 2
    return f"<title>{escape(name)}</title>{escape(name[:half])}…{escape(name[-half:])}"
