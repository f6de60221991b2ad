"""The figures to see first: the best row, HAN, and what guessing gets."""

from collections import Counter
from typing import TYPE_CHECKING

from han_core.report.document import Block, Figure, Headline
from han_core.rows import title_of
from pipeline.params import Params
from pipeline.report.chosen import ON_TEST, settings_of
from pipeline.report.tables import Summary

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def headline(params: Params, table: "ClipTable", summary: Summary) -> list[Block]:
    """Of this dataset's test clips; nothing where no row was scored."""
    if not summary:
        return []
    best, *others = sorted(summary, key=lambda name: -summary[name]["top1"]["mean"])  # stable
    about = _about(params, summary, best)
    if best == "han" and others:  # its own figure stands beside it
        about += f". Next: {title_of(others[0])}, {_top1(summary, others[0])}"
    figures = [Figure("Best row", _top1(summary, best), about)]
    if "han" in summary:
        figures.append(Figure("HAN", _top1(summary, "han"), _about(params, summary, "han")))
    else:
        figures.append(Figure("HAN", "missing", "not among the models that were run"))
    return [Headline([*figures, _chance(params, table)])]


def _top1(summary: Summary, name: str) -> str:
    return f"{100 * summary[name]['top1']['mean']:.1f} %"


def _about(params: Params, summary: Summary, name: str) -> str:
    """Which row it is, how many clips that are, and what keeps the figure from being compared."""
    figures = summary[name]
    right = f"{figures['right']:.1f}" if "over_seeds" in figures else str(figures["right"])
    text = f"{title_of(name)}: {right} of {figures['clips']} test clips"
    if "over_seeds" in figures:
        text += f", mean over {len(figures['seeds'])} seeds"
    tuned = settings_of(params, {params.dataset.name: summary}, name) == ON_TEST
    return f"{text}; settings {ON_TEST}" if tuned else text


def _chance(params: Params, table: "ClipTable") -> Figure:
    """Guessing among all classes; always naming the commonest class of the test clips, where that does better."""
    even = 1 / len(table.classes)
    labels = [[clip.label for clip in table.select(split, "test")] for split in params.splits]
    shares = [max(Counter(found).values()) / len(found) for found in labels if found]
    commonest = sum(shares) / len(shares) if shares else 0.0
    text = f"guessing among {len(table.classes)} classes"
    if commonest > 1.02 * even:
        text += f"; always the commonest class of the test clips: {100 * commonest:.1f} %"
    return Figure("Chance", f"{100 * even:.1f} %", text)
