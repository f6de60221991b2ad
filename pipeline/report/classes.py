"""Accuracy and confusion of the classes."""

import csv
from collections import Counter
from typing import TYPE_CHECKING

from han_core.report.document import Block, Fold, Heading, Matrix, Paragraph, Table
from pipeline.params import Params
from pipeline.report.predictions import FAILED, anchor_of

if TYPE_CHECKING:
    from han_core.clips import ClipTable
    from pipeline.paths import Paths

_PAIRS = 10
"""Most confused pairs of classes that are listed."""


def per_class(params: Params, table: "ClipTable", paths: "Paths") -> list[Block]:
    """The first model's classes as bars, with what each is most often taken for; then all rows side by side."""
    with (paths.plots / "per_class.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    models = list(dict.fromkeys(row["model"] for row in found))
    lead = params.models[0]
    taken_for: dict[str, Counter[str]] = {}
    for actual, predicted in _pairs(paths, lead):
        if actual != predicted:
            taken_for.setdefault(actual, Counter())[predicted] += 1
    rows = []
    for row in (row for row in found if row["model"] == lead):
        mistakes = taken_for.get(row["class"], Counter()).most_common(1)
        mistaken = f"{mistakes[0][0]} ({mistakes[0][1]})" if mistakes else "-"
        rows.append([row["class"], _per_cent(row["top1"]), row["right"], row["clips"], mistaken])
    by_class: dict[str, dict[str, str]] = {}
    for row in found:
        by_class.setdefault(row["class"], {})[row["model"]] = _per_cent(row["top1"])
    everything = [[name, *(cells.get(model, "-") for model in models)] for name, cells in by_class.items()]
    blocks: list[Block] = [Heading("Accuracy by class (%)")]
    if (seeds := len(params.train.seeds)) > 1:
        blocks.append(Paragraph(f"Of HAN the answers of all {seeds} seeds are counted together."))
    if rows:
        blocks.append(Table(["Class", lead, "right", "clips", "most often taken for"], rows, bars=[1], words=[4]))
    whole = Table(["Class", *models], everything, bars=range(1, len(models) + 1))
    return [*blocks, Fold("All rows", [whole]) if rows else whole]


def confusion(params: Params, table: "ClipTable", paths: "Paths", listed: set[str]) -> list[Block]:
    """A matrix per model and its most confused pairs, test clips of all splits and seeds together; the first model's
    is open.

    Args:
        listed: models whose predictions the page lists clip by clip, so that cells can open them.
    """
    text = "Rows are the true classes, columns the predicted ones. The fuller the colour, the larger the share."
    if listed:
        text += " Click at a cell to see its clips."
    if len(params.train.seeds) > 1:
        text += f" Every clip counts once for each of the {len(params.train.seeds)} seeds."
    blocks: list[Block] = [Heading("Confusion"), Paragraph(text)]
    place = {name: n for n, name in enumerate([*table.classes, FAILED])}
    for model in params.models:
        counts = [[0] * len(place) for _ in table.classes]
        pairs = Counter(_pairs(paths, model))
        for (actual, predicted), count in pairs.items():
            counts[place[actual]][place[predicted]] = count
        if not any(row[-1] for row in counts):
            counts = [row[:-1] for row in counts]
        clips = anchor_of(model) if model in listed else ""
        own: list[Block] = [
            Matrix(f"confusion-{model}.svg", counts, table.classes, f"confusion matrix of {model}", clips)
        ]
        mistakes = sorted(
            ((-count, actual, predicted) for (actual, predicted), count in pairs.items() if actual != predicted)
        )
        if mistakes:
            totals = {name: sum(row) for name, row in zip(table.classes, counts, strict=True)}
            rows = [
                [actual, predicted, str(-count), f"{100 * -count / totals[actual]:.0f}"]
                for count, actual, predicted in mistakes[:_PAIRS]
            ]
            several = f", the first {_PAIRS} of {len(mistakes)}" if len(mistakes) > _PAIRS else ""
            own += [
                Paragraph(f"Most confused by {model}{several}:"),
                Table(["Class", "taken for", "clips", "of its clips (%)"], rows, bars=[3], words=[1]),
            ]
        blocks += [Paragraph(model), *own] if model == params.models[0] else [Fold(model, own)]
    return blocks


def _pairs(paths: "Paths", model: str) -> list[tuple[str, str]]:
    """(true class, predicted class) of every test clip."""
    with (paths.plots / "confusion" / f"{model}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]


def _per_cent(share: str) -> str:
    return f"{100 * float(share):.0f}"
