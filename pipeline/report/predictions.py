"""What each model says of every test clip."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from han_core.predictions import probabilities_file, read_predictions
from han_core.report.document import Block, Document, Fold, Heading, Paragraph, Table
from han_core.report.html import render_html
from pipeline.params import Params
from pipeline.report.room import Room

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable
    from pipeline.paths import Paths

FAILED = "(failed)"
"""Stands for the class of a clip without a prediction, as in the tables of ``evaluate``."""
_TOP = 5
_OPEN = 300  # rows up to which the first model's table is open; browsers take seconds to lay out thousands


def anchor_of(model: str) -> str:
    """Of the table of a model's predictions."""
    return f"predictions-{model}"


def clip_names(table: "ClipTable") -> "Callable[[Clip], str]":
    """What clips are called in the report: by their name, or with their class where two have one name."""
    count = Counter(clip.name for clip in table.clips)
    return lambda clip: clip.name if count[clip.name] == 1 else clip.key


def predictions(params: Params, table: "ClipTable", paths: "Paths", room: Room) -> tuple[list[Block], set[str]]:
    """A table per model, the first one's open where it is short, and the models that have one.

    Where not all fit into half of the room, a model's mistakes alone are listed, or nothing of it; the page says so.
    """
    half = room.left // 2
    blocks: list[Block] = []
    listed: set[str] = set()
    cut: list[str] = []
    for model in params.models:
        rows = _rows(params, table, paths, model)
        header = ["Clip", *_which(params), "Class", "Predicted", "rank of its class", f"top {_TOP}, %"]
        mistakes = [row for row in rows if row[-4] != row[-3]]
        for shown in (rows, mistakes):
            words = [0, len(header) - 4, len(header) - 3, len(header) - 1]
            own = Table(header, shown, words=words, anchor=anchor_of(model))
            size = len(render_html(Document("", [own])).encode()) - len(render_html(Document("")).encode())
            if room.take(size, half):
                half -= size
                listed.add(model)
                note = [Paragraph(f"Only the mistakes of {model} are listed.")] if shown is not rows else []
                is_open = not blocks and len(shown) <= _OPEN
                blocks += [Paragraph(model), *note, own] if is_open else [Fold(model, [*note, own])]
                cut += [model] if note else []
                break
        else:
            cut.append(model)
    text = (
        "Every test clip of every split: its class, what the model took it for, at which place of the model's list its "
        f"class stands, and the {_TOP} likeliest classes."
    )
    if cut:
        text += (
            f" Not all predictions of {', '.join(cut)} are here, because the page may have {params.report.megabytes:g} "
            "megabytes (report.megabytes)."
        )
    return [Heading("Predictions"), Paragraph(text), *blocks], listed


def _which(params: Params) -> list[str]:
    """Columns that tell one answer about a clip from another."""
    return ["Split"] * (len(params.splits) > 1) + ["Seed"] * (len(params.train.seeds) > 1)


def _rows(params: Params, table: "ClipTable", paths: "Paths", model: str) -> list[list[str]]:
    name_of = clip_names(table)
    rows = []
    for split in params.splits:
        for seed in params.seeds_of(model):
            found = read_predictions(probabilities_file(paths.predictions(model, split, seed), model), table.classes)
            which = [str(split)] * (len(params.splits) > 1) + [str(seed)] * (len(params.train.seeds) > 1)
            for clip in table.select(split, "test"):
                cells = _answer(found.get(clip.key), clip.label, table.classes)
                rows.append([name_of(clip), *which, clip.class_name, *cells])
    return rows


def _answer(chances: np.ndarray | None, label: int, classes: tuple[str, ...]) -> list[str]:
    """Predicted class, rank of the true one, the likeliest ones with their probabilities in per cent."""
    if chances is None:
        return [FAILED, "-", "-"]
    order = np.argsort(-chances, kind="stable")
    rank = int(np.flatnonzero(order == label)[0]) + 1
    likeliest = ", ".join(f"{classes[n]} {100 * chances[n]:.0f}" for n in order[:_TOP])
    return [classes[order[0]], str(rank), likeliest]
