"""Stage ``finetune_slow_fusion``: the spatio-temporal CNN of Table 2, Slow Fusion [10], on a split's training clips.

Reads the clip files of kind frames and writes the net and its training curve, the latter as it grows
(``pipeline/net_training.py``).
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.execution.launch import relaunched
from pipeline.execution.told import told_plainly
from pipeline.net_training import ClipFiles, NetJob, clip_files, make_net, training_arithmetic
from pipeline.params import Params, SlowFusionRecipe, load_params, params_option

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import torch

    from han_core.cache.store import ClipCache
    from han_core.devices import Precision
    from han_core.finetune.loop import Step
    from han_core.finetune.sgd import SGDSchedule
    from han_core.nets.slow_fusion.net import SlowFusion
    from han_core.runs.processes import Processes

_INITIAL = {"weights", "trained", "fc_size", "resize", "flip"}  # of the recipe: all that matters to an untrained net


@click.command()
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(split: int, params_path: Path) -> None:
    """Train Slow Fusion on the training clips of one split."""
    params = load_params(params_path)
    arguments = ["--split", str(split), "--params", str(params_path)]
    if params.slow_fusion.train.iterations and relaunched(params.run, "pipeline.finetune_slow_fusion", arguments):
        return

    from han_core.cache.store import ClipCache
    from han_core.devices import choose_device
    from han_core.runs.processes import processes

    with told_plainly(f"finetune slow_fusion-{split}"), processes(choose_device(params.run.device)) as group:
        finetune_net(params, split, ClipCache.from_environment(verify=params.run.verify), group)


def finetune_net(params: Params, split: int, cache: "ClipCache", group: "Processes") -> None:
    """Make the net of a split, or take it from the cache."""
    make_net(net_job(params, split, group.device), params, cache, group)


def net_job(params: Params, split: int, device: "torch.device") -> NetJob:
    """What the net of a split is made from, and how, on a device."""
    from han_core.clips import read_clips
    from han_core.nets.slow_fusion.weights import initial_net, knows_classes, weights_identity
    from pipeline.paths import Paths

    recipe, paths = params.slow_fusion.train, Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    learnt, held_out = ClipFiles(), ClipFiles()
    if recipe.iterations:
        learnt = clip_files(paths.frames, table, split, "train")
        held_out = clip_files(paths.frames, table, split, "validation") if recipe.validate_every else held_out
    settings = recipe.model_dump(mode="json", include=None if recipe.iterations else _INITIAL)
    settings |= training_arithmetic(recipe.precision, device) if recipe.iterations else {}
    settings |= {"weights": weights_identity(recipe.weights), "stream": "slow_fusion"}
    settings |= {"seed": params.seed, "classes": list(table.classes)}
    return NetJob(
        stage="finetune-slow-fusion",
        name=f"slow_fusion-{split}",
        split=split,
        settings=settings,
        iterations=recipe.iterations,
        batch=recipe.batch,
        learnt=learnt,
        held_out=held_out,
        output=paths.slow_fusion(split),
        knows_classes=knows_classes(recipe.weights, table.classes),
        initial=partial(
            initial_net,
            recipe.weights,
            classes=len(table.classes),
            fc_size=recipe.fc_size,
            trained=recipe.trained,
            dropout=recipe.dropout,
            seed=params.seed,
        ),
        train=partial(_train, params, settings, learnt, held_out),
        write=partial(_write_net, settings),
    )


def _train(
    params: Params, settings: dict[str, Any], learnt: ClipFiles, held_out: ClipFiles, net: "SlowFusion", **running: Any
) -> "list[Step]":
    from han_core.finetune.loop import finetune
    from han_core.nets.slow_fusion.inputs import FrameWindows, prepare

    return finetune(
        net,
        FrameWindows(learnt.paths, learnt.labels),
        schedule(params.slow_fusion.train, settings["precision"]),
        prepare=prepare,
        seed=params.seed,
        validation=FrameWindows(held_out.paths, held_out.labels) if held_out.clips else None,
        **running,
    )


def schedule(recipe: SlowFusionRecipe, precision: "Precision") -> "SGDSchedule":
    """The training part of a recipe; biases learn and decay as weights do."""
    from han_core.finetune.sgd import SGDSchedule
    from han_core.nets.slow_fusion.inputs import SquareViews
    from han_core.nets.slow_fusion.weights import LAST_FROZEN

    names = SGDSchedule.__dataclass_fields__.keys() - {"precision"}
    return SGDSchedule(
        **recipe.model_dump(include=names),
        bias_rate=1.0,
        bias_decay=1.0,
        frozen=LAST_FROZEN[recipe.trained],
        precision=precision,
        views=SquareViews(recipe.resize, recipe.flip),
    )


def _write_net(settings: dict[str, Any], path: Path, net: "SlowFusion", facts: dict[str, str]) -> None:
    """The net with what a person, or stage scores_slow_fusion, needs to know of it; a class list, but nothing of the
    split.

    Args:
        facts: further entries of the metadata.
    """
    from han_core.nets.slow_fusion.inputs import SquareViews
    from han_core.nets.slow_fusion.net_file import write_net

    recipe = {"iterations": 0} | {
        name: settings[name] for name in settings if name not in ("classes", "seed", "stream")
    }
    metadata = {
        "classes": json.dumps(settings["classes"], ensure_ascii=False),
        **facts,
        "recipe": json.dumps(recipe, sort_keys=True),
        "seed": str(settings["seed"]),
        "stream": settings["stream"],
    }
    write_net(path, net, SquareViews(settings["resize"], settings["flip"]), metadata)


if __name__ == "__main__":
    main()
