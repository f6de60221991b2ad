"""Lines over a number as SVG that draws in ``currentColor``, so that a page in dark mode shows them light."""

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 36
_COLOURS = ("#2a7fde", "#e0691f", "#2e9d5b", "#b04fc4", "#b8860b", "#d43f5e", "#1a9aa3", "#8a6d4b")
"""In the middle of the range of lightness, so that all can be told on light and on dark paper."""
_DASHES = ("", "6 3", "2 3")
_LETTER, _LINE = 6.6, 16  # pixels of the legend, at a font size of 11
_MARKED = 60  # steps up to which every value has a mark


def line_chart(
    series: Mapping[str, Mapping[int, float]], *, x_label: str, y_label: str, top: float | None = None
) -> bytes:
    """Lines, one a name, as SVG. The same numbers give the same bytes.

    The values stand in the picture as attributes ``data-x`` and ``data-y`` of each line, so that a page can tell them.

    Args:
        series: name -> x -> y.
        top: upper end of the y axis; None goes by the values.
    """
    steps = sorted({x for values in series.values() for x in values}) or [0]
    first, last = steps[0], max(steps[-1], steps[0] + 1)
    highest = top or max((y for values in series.values() for y in values.values()), default=0) or 1.0
    y_ticks = _ticks(0.0, highest)
    highest = max(highest, y_ticks[-1])

    def at_x(x: float) -> float:
        return _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return _TOP + (1 - min(max(y, 0.0), highest) / highest) * (_HEIGHT - _TOP - _BOTTOM)

    legend, below = _legend(list(series))
    height = _HEIGHT + below
    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lines" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11" fill="currentColor" '
        f'data-label="{escape(x_label)}">'
    ]
    for tick in y_ticks:
        y = at_y(tick)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(first, last):
        if tick == int(tick):
            parts.append(f'<text x="{at_x(tick):.1f}" y="{floor + 14}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<path d="M{_LEFT} {_TOP}V{floor}H{_WIDTH - _RIGHT}" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{floor + 29}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(11 {(_TOP + floor) / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for number, (name, values) in enumerate(series.items()):
        points = [(x, values[x]) for x in sorted(values)]
        places = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        told = "".join(
            f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="4" fill="none" pointer-events="all">'
            f"<title>{escape(f'{name}, {x_label} {x}: {y:.4g}')}</title></circle>"
            for x, y in (points if len(points) <= _MARKED else ())
        )
        parts.append(
            f'<g class="line" data-name="{escape(name)}" data-x="{" ".join(str(x) for x, _ in points)}" '
            f'data-y="{" ".join(f"{y:.4g}" for _, y in points)}">'
            f'<polyline points="{places}" {_stroke(number)}/>{told}</g>'
        )
    return "".join([*parts, legend, "</svg>"]).encode("utf-8")


def _stroke(number: int) -> str:
    """Colour of a line, and once all colours are used dashes."""
    dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.7"{dashed}'


def _legend(names: Sequence[str]) -> tuple[str, int]:
    """The names below the chart, as many a line as fit, and the height that they need."""
    x, y, parts = _LEFT, _HEIGHT + 10, []
    for number, name in enumerate(names):
        needed = 26 + _LETTER * len(name) + 12
        if x > _LEFT and x + needed > _WIDTH:
            x, y = _LEFT, y + _LINE
        parts.append(
            f'<path d="M{x:g} {y - 4}h20" {_stroke(number)}/><text x="{x + 25:g}" y="{y}">{escape(name)}</text>'
        )
        x += needed
    return "".join(parts), y - _HEIGHT + 6


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` on, four to seven of them, the last at ``high`` or below it by less than a step."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= rough)
    start = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(start, math.floor(high / step + 1e-9) + 1)]
