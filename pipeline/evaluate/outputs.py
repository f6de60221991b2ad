"""The files that stage ``evaluate`` writes."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from han_core.evaluation.metrics import predictions
from han_core.evaluation.results import Result, class_counts, confusion_pairs
from han_core.rows import by_name

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def write_json(summary: dict, path: Path) -> None:
    """Nested figures, rounded to six decimals."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        return round(value, 6) if isinstance(value, float) else value

    path.write_text(json.dumps(rounded(summary), indent=2) + "\n", encoding="utf-8")


MOST_FIGURES = 10
"""That a table of experiments can show."""


def headline(summary: Mapping[str, dict]) -> dict[str, float]:
    """{model: top-1, mean over splits and seeds} of the first ten rows that are no part of another's system.

    Args:
        summary: of :func:`han_core.evaluation.results.summarize`, rows in the order of the params.
    """
    whole = [name for name in summary if (row := by_name(name)) is None or not row.part]
    return {name: summary[name]["top1"]["mean"] for name in whole[:MOST_FIGURES]}


def write_rows(path: Path, header: list[str], rows: Iterable[Iterable]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_predictions(results: Iterable[Result], table: "ClipTable", path: Path) -> None:
    """What every system says of every test clip: its most likely class and that class's probability."""
    rows = []
    for result in results:
        predicted = predictions(result.probabilities)
        for clip, label, row in zip(result.clips, predicted, result.probabilities, strict=True):
            said = table.classes[label] if label >= 0 else ""
            sure = f"{row[label]:.4f}" if label >= 0 else ""
            seed = "" if result.seed is None else result.seed
            rows.append([result.model, result.split, seed, clip.name, clip.class_name, said, sure])
    write_rows(path, ["model", "split", "seed", "clip", "class", "predicted", "probability"], rows)


def write_per_class(results: Iterable[Result], table: "ClipTable", path: Path) -> None:
    """Accuracy by class, clips of all splits and seeds added up."""
    counts = class_counts(results, table.classes)
    rows = [[model, name, f"{right / clips:.4f}", right, clips] for (model, name), (right, clips) in counts.items()]
    write_rows(path, ["model", "class", "top1", "right", "clips"], rows)


def write_confusion(results: Iterable[Result], table: "ClipTable", folder: Path) -> None:
    """One file per system, one row per test clip and seed, as DVC's confusion plots read it."""
    for model, pairs in confusion_pairs(results, table.classes).items():
        write_rows(folder / f"{model}.csv", ["actual", "predicted"], pairs)
