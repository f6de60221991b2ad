"""Charts as SVG that draw in ``currentColor``, so that a page in dark mode shows them light."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

_INK = "#010203"  # stands for currentColor while matplotlib draws
_NAMED = 20  # classes up to which a confusion matrix spells names and counts


def line_chart(
    series: Mapping[str, Mapping[int, float]], *, x_label: str, y_label: str, top: float | None = None
) -> bytes:
    """Lines, one a name, as SVG. The same numbers give the same bytes.

    Args:
        series: name -> x -> y.
        top: upper end of the y axis; None goes by the values.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    looks = {
        "svg.hashsalt": "han",  # names of clip paths; a random one would change the bytes
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    }
    with matplotlib.rc_context(looks):
        figure, axes = pyplot.subplots(figsize=(7, 3.2))
        for name, values in series.items():
            axes.plot(list(values), list(values.values()), label=name, linewidth=1.5)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(bottom=0, top=top)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, color=_INK)
        axes.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).strip().encode("utf-8")


def confusion_chart(counts: np.ndarray, classes: Sequence[str]) -> bytes:
    """A confusion matrix as SVG: rows the true class, columns the predicted one, darker the larger its share.

    Args:
        counts: (C, C) or (C, C + 1) int; the last of C + 1 columns counts clips without a prediction.
        classes: C names.
    """
    shown, columns = counts.shape
    named = shown <= _NAMED
    cell = 26 if named else max(4, 480 // shown)
    margin = 7 * max(map(len, classes)) + 12 if named else 4
    width, height = margin + columns * cell + 2, margin + shown * cell + 2
    totals = counts.sum(axis=1)
    labels = [*classes, "(failed)"][:columns]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="currentColor">'
    ]
    if named:
        for n, name in enumerate(labels):
            x = margin + (n + 0.7) * cell
            parts.append(f'<text transform="translate({x:g} {margin - 6}) rotate(-90)">{escape(name)}</text>')
        for n, name in enumerate(classes):
            parts.append(
                f'<text x="{margin - 6}" y="{margin + (n + 0.65) * cell:g}" text-anchor="end">{escape(name)}</text>'
            )
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = counts[row, column] / totals[row]
        # Right answers and mistakes in colours that differ in lightness too, on light and on dark paper.
        colour = "#2a7fde" if row == column else "#e0691f"
        x, y = margin + column * cell, margin + row * cell
        description = f"{classes[row]} taken for {labels[column]}: {counts[row, column]} of {totals[row]}"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="{colour}" '
            f'fill-opacity="{0.15 + 0.85 * share:.3f}">'
            f"<title>{escape(description)}</title></rect>"
        )
        if named:
            parts.append(
                f'<text x="{x + cell / 2:g}" y="{y + cell / 2 + 4:g}" text-anchor="middle">{counts[row, column]}</text>'
            )
    parts.append(
        f'<rect x="{margin}" y="{margin}" width="{columns * cell}" height="{shown * cell}" fill="none" '
        'stroke="currentColor" stroke-opacity=".5"/></svg>'
    )
    return "".join(parts).encode("utf-8")
