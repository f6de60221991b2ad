"""The report's learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from han_core.report.charts import line_chart
from han_core.report.document import Block, Heading, Picture
from pipeline.curve import read_curve
from pipeline.params import Params

if TYPE_CHECKING:
    from pipeline.paths import Paths


def curves(params: Params, paths: "Paths") -> list[Block]:
    """Means over the splits and seeds, of the training clips and of validation clips where there are any."""
    blocks: list[Block] = [Heading("Learning curves")]
    streams = ("spatial", "temporal")
    folder = paths.plots / "finetune"
    made = folder.is_dir()  # not where nets were put there by hand
    nets = {name: [folder / f"{name}-{split}" for split in params.finetune.splits] for name in streams if made}
    lines = {name: mean for name, runs in nets.items() if (mean := _mean_curve(runs))}
    if lines:  # not where the nets are used as they are
        svg = line_chart(lines, x_label="iteration", y_label="fine-tuning loss")
        blocks.append(Picture("curve-finetune-loss.svg", svg, "svg", "fine-tuning loss by iteration, a line per net"))
    models = {
        name: [paths.training_curve(name, split, seed) for split in params.splits for seed in params.seeds_of(name)]
        for name in params.models
    }
    for column, label in (
        ("loss", "training loss"),
        ("top1", "training top-1, dropout on"),
        ("validation_loss", "validation loss"),
        ("validation_top1", "validation top-1"),
    ):
        lines = {name: mean for name, runs in models.items() if (mean := _mean_curve(runs, column))}
        if lines:
            top = 1.02 if column.endswith("top1") else None
            svg = line_chart(lines, x_label="epoch", y_label=label, top=top)
            name = f"curve-{column.replace('_', '-')}.svg"
            blocks.append(Picture(name, svg, "svg", f"{label} by epoch, one line per model"))
    return blocks


def _mean_curve(runs: Sequence[Path], figure: str = "loss") -> dict[int, float]:
    """Step -> mean over the curves of several runs, at the steps that all of them have; empty where one lacks the
    figure."""
    curves = [read_curve(folder, figure) for folder in runs]
    shared = [step for step in (curves[0] if curves else ()) if all(step in curve for curve in curves)]
    return {step: sum(curve[step] for curve in curves) / len(curves) for step in shared}
