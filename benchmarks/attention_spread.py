"""Why HAN's attention maps are uniform, or not: over how many regions they spread, by how long W of eq. 3 learns.

\b
    python -m benchmarks.attention_spread FOLDER --split 1

FOLDER is a project folder in which the cubes are made, and its params.yaml. Trains HAN on two thirds of the training
groups of a split and looks at the maps of the other third; test clips are not opened. Each line changes one thing:
the number of steps, the learning rate of W, its first values, the optimizer. Beside the spread stand what W's scores
differ by over a map, how much the maps of a clip differ over time, and the clips of the third that were right.
"""

import contextlib
import json
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.machine import machine
from han_core.clips import read_clips
from han_core.cubes.placement import placed
from han_core.evaluation.attention_quality import effective_regions
from han_core.han.training import classify, train
from han_core.han.variants import VARIANTS
from pipeline.chosen import in_words, with_settings
from pipeline.features import open_store
from pipeline.params import load_params
from pipeline.paths import Paths
from pipeline.selection.inner import Inner, inner_folds
from pipeline.train import initial_model, model_config, product_type
from pipeline.training import repeatable, schedule

PLAIN = {
    "views": [],
    "shift": 0,
    "region_dropout": 0.0,
    "optimizer.name": "adadelta",
    "optimizer.learning_rate": 1.0,
}
"""What every line has, whatever the params say."""
ADAM = {"optimizer.name": "adam", "optimizer.learning_rate": 0.002}
SETTINGS = (
    {"epochs": 20},
    {"epochs": 60},
    {"epochs": 200},
    {"epochs": 60, "attention_rate": 10},
    {"epochs": 60, "attention_rate": 100},
    {"epochs": 60, "attention_deviation": 1.0},
    {"epochs": 20, **ADAM},
    {"epochs": 60, **ADAM},
    {"epochs": 60, "attention_rate": 10, **ADAM},
)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(folder: Path, split: int, seeds: int, out: Path) -> None:
    out = out.resolve()
    with contextlib.chdir(folder):
        params = load_params()
        table, variant = read_clips(Paths.of(params).clips), VARIANTS["han"]
        clips = table.select(split, "train")
        array = variant.array(params.cubes.fc)
        store = open_store(params, split, clips, streams=variant.streams, array=array, pooled=variant.pooled, views=[])
        folds = inner_folds(store.clips, 3, params.seed, split)
        inner = Inner("han", variant, table.classes, store, folds)
        device = torch.device("cpu")
        features = placed(store, "memory", device)[0]
    repeatable()
    learnt, held_out = inner.sides(1)
    lines = []
    click.echo(
        "| settings | steps | regions | scores differ by | maps differ over time | right |\n|---|---|---|---|---|---|"
    )
    for settings in SETTINGS:
        changed = with_settings(params.train, PLAIN | settings)
        found = []
        for seed in range(1, seeds + 1):
            model, _ = initial_model(changed, model_config(changed, variant, store, len(table.classes)), "han", seed)
            model.product_type = product_type(changed, device)
            train(model, features.subset(learnt), schedule(changed, seed))
            tested = features.subset(held_out)
            probabilities, maps = classify(model, tested, details=True)
            found.append([*figures_of(maps.numpy()), int((probabilities.argmax(1) == tested.labels).sum())])
        line = {
            "settings": in_words(settings),
            "steps": changed.epochs * -(-len(learnt) // changed.batch),
            "clips": len(held_out),
            **dict(zip(("regions", "scores", "over_time", "right"), np.mean(found, axis=0).tolist(), strict=True)),
        }
        lines.append(line)
        click.echo(
            f"| {line['settings']} | {line['steps']} | {line['regions']:.1f} | {line['scores']:.3f} "
            f"| {line['over_time']:.3f} | {line['right']:.1f} of {line['clips']} |"
        )
        out.write_text(json.dumps({"machine": machine(), "seeds": seeds, "lines": lines}, indent=1) + "\n", "utf-8")


def figures_of(maps: np.ndarray) -> tuple[float, float, float]:
    """Of maps (N, T, R): the regions they spread over; the standard deviation of the scores, which are the maps' logs,
    over a map; and how much of a map is not the mean map of its clip: half the sum of the differences, 0 to 1. Without
    the first map of each clip, which is uniform because h_0 = 0."""
    maps = maps[:, 1:].astype(np.float64)
    regions = float(np.mean([effective_regions(clip) for clip in maps]))
    scores = np.log(np.maximum(maps, 1e-30)).std(axis=2).mean()
    over_time = 0.5 * np.abs(maps - maps.mean(axis=1, keepdims=True)).sum(axis=2).mean()
    return regions, float(scores), float(over_time)


if __name__ == "__main__":
    main()
