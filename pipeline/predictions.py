"""The predictions of the rows that the params ask for, as the stages before ``evaluate`` left them."""

from typing import TYPE_CHECKING

import click
import numpy as np

from han_core.evaluation.results import Result, ensemble
from han_core.predictions import (
    Attention,
    attention_file,
    probabilities_file,
    read_attention,
    read_left_out,
    read_predictions,
)
from han_core.rows import Row, ensemble_of, rows_of
from pipeline.params import Params
from pipeline.paths import Paths

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def read_results(params: Params, table: "ClipTable") -> list[Result]:
    """One result for each split, row and seed, in the order of the params; NaN for clips without a prediction. Below
    those of a row with several seeds that of their ensemble, where ``evaluate.ensemble`` asks for it.

    Rows that could not be made are said, with the reason, and left out.

    Raises:
        PredictionsError: a file is missing or damaged.
    """
    results = []
    for split in params.splits:
        clips = table.select(split, "test")
        for family in params.families:
            of_seeds: dict[str, list[Result]] = {}
            for seed in params.seeds_of(family):
                folder = Paths.of(params).predictions(family, split, seed)
                left_out = read_left_out(folder)
                for row in rows_of(family):
                    if row.name in left_out:
                        click.echo(f"no row {row.name} of split {split}: {left_out[row.name]}")
                        continue
                    found = read_predictions(probabilities_file(folder, row.name), table.classes)
                    gap = np.full(len(table.classes), np.nan)
                    probabilities = np.array([found.get(clip.key, gap) for clip in clips])
                    of_seeds.setdefault(row.name, []).append(Result(row.name, split, clips, probabilities, seed))
            for name, own in of_seeds.items():
                results += own
                joined = ensemble_of(name)
                if params.evaluate.ensemble and len(own) > 1 and joined:
                    results.append(ensemble(joined.name, own))
    return results


def read_maps(params: Params, row: Row, split: int) -> list[Attention]:
    """The attention maps that a row left for one split, one a seed.

    Raises:
        PredictionsError: a file is missing or damaged.
    """
    folders = [Paths.of(params).predictions(row.family, split, seed) for seed in params.seeds_of(row.family)]
    return [read_attention(attention_file(folder, row.name)) for folder in folders]


def attending_rows(params: Params) -> list[Row]:
    """The rows that the params ask for and that left attention maps, in their order."""
    paths, split = Paths.of(params), params.splits[0]
    return [
        row
        for family in params.families
        for row in rows_of(family)
        if attention_file(paths.predictions(family, split, params.seeds_of(family)[0]), row.name).is_file()
    ]
