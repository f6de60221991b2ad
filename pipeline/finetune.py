"""Stage ``finetune``: one VGG-16 of a stream, trained on the training clips of a split.

Reads the clip files of the stream (frames or flow) and writes the net and its training curve, the latter as it grows
(``pipeline/net_training.py``). A net other than VGG-16 (``cubes.net``) is written with the weights that it comes with.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.execution.launch import relaunched
from pipeline.execution.told import told_plainly
from pipeline.net_training import ClipFiles, NetJob, clip_files, make_net
from pipeline.params import VGG16 as VGG16_NAME
from pipeline.params import Params, Recipe, load_params, params_option

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import torch

    from han_core.cache.store import ClipCache
    from han_core.devices import Precision
    from han_core.finetune.loop import Step
    from han_core.finetune.sgd import SGDSchedule
    from han_core.nets.clip_inputs import TrainingClips
    from han_core.nets.preprocess import Convention
    from han_core.nets.torchvision_net import TorchvisionNet
    from han_core.nets.vgg16 import VGG16
    from han_core.runs.processes import Processes

_INITIAL = ("weights", "input", "fc_size")  # of the recipe: all that matters to a net that is not trained


@click.command()
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Fine-tune the net of one stream on the training clips of one split."""
    params = load_params(params_path)
    trained = bool(getattr(params.finetune, stream).iterations)
    arguments = ["--stream", stream, "--split", str(split), "--params", str(params_path)]
    if trained and relaunched(params.run, "pipeline.finetune", arguments):
        return

    from han_core.cache.store import ClipCache
    from han_core.devices import choose_device
    from han_core.runs.processes import processes

    with told_plainly(f"finetune {stream}-{split}"), processes(choose_device(params.run.device)) as group:
        finetune_net(params, stream, split, ClipCache.from_environment(verify=params.run.verify), group)


def finetune_net(params: Params, stream: str, split: int, cache: "ClipCache", group: "Processes") -> None:
    """Make the net of a stream and split, or take it from the cache."""
    make_net(net_job(params, stream, split, group.device), params, cache, group)


def net_job(params: Params, stream: str, split: int, device: "torch.device") -> NetJob:
    """What the net of a stream and split is made from, and how, on a device."""
    from han_core.clips import read_clips
    from han_core.nets.weights import initial_net, knows_classes, resolve_convention
    from pipeline.paths import Paths

    recipe: Recipe = getattr(params.finetune, stream)
    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    if params.cubes.net != VGG16_NAME:
        return _taken(params, stream, split)
    convention = resolve_convention(recipe.weights, recipe.input)
    learnt, held_out = ClipFiles(), ClipFiles()
    if recipe.iterations:
        folder, _ = paths.source(stream)
        learnt = clip_files(folder, table, split, "train")
        held_out = clip_files(folder, table, split, "validation") if recipe.validate_every else held_out
    settings = net_settings(params, stream, convention, table.classes, device)
    return NetJob(
        stage=f"finetune-{stream}",
        name=f"{stream}-{split}",
        split=split,
        settings=settings,
        iterations=recipe.iterations,
        batch=recipe.batch,
        learnt=learnt,
        held_out=held_out,
        output=replace(paths, nets=paths.dataset).net(stream, split),
        knows_classes=knows_classes(recipe.weights, table.classes),
        initial=partial(
            initial_net,
            recipe.weights,
            classes=len(table.classes),
            fc_size=recipe.fc_size,
            in_channels=3 if stream == "spatial" else 2 * params.stack,
            dropout=recipe.dropout,
            seed=params.seed,
        ),
        train=partial(_train, params, stream, settings, learnt, held_out),
        write=partial(_write_net, settings),
    )


def _taken(params: Params, stream: str, split: int) -> NetJob:
    """The job of a net other than VGG-16, which is not trained and knows nothing of the dataset."""
    from han_core.nets.torchvision_file import scale_metadata
    from han_core.nets.torchvision_weights import torchvision_identity, torchvision_net, torchvision_scale
    from pipeline.paths import Paths

    recipe: Recipe = getattr(params.finetune, stream)
    paths, wanted = Paths.of(params), params.cubes.net
    scale = torchvision_scale(wanted, recipe.weights)
    settings = {
        **scale_metadata(wanted, scale),
        "weights": torchvision_identity(wanted, recipe.weights),
        "input": "torchvision",
        "seed": params.seed,
        "stream": stream,
    } | ({"stack": params.stack} if stream == "temporal" else {})
    return NetJob(
        stage=f"finetune-{stream}",
        name=f"{stream}-{split}",
        split=split,
        settings=settings,
        iterations=0,
        batch=recipe.batch,
        learnt=ClipFiles(),
        held_out=ClipFiles(),
        output=replace(paths, nets=paths.dataset).net(stream, split),
        knows_classes=False,
        initial=partial(
            torchvision_net,
            wanted,
            recipe.weights,
            size=scale.size,
            in_channels=3 if stream == "spatial" else 2 * params.stack,
            seed=params.seed,
        ),
        train=_train,
        write=partial(_write_taken, settings),
    )


def net_settings(
    params: Params, stream: str, convention: "Convention", classes: Sequence[str], device: "torch.device"
) -> dict[str, Any]:
    """All that decides what a net is, besides the clips; of one that is not trained, nothing of the schedule."""
    from han_core.nets.weights import weights_identity
    from pipeline.net_training import training_arithmetic

    recipe: Recipe = getattr(params.finetune, stream)
    settings = recipe.model_dump(mode="json", include=None if recipe.iterations else set(_INITIAL))
    settings |= training_arithmetic(recipe.precision, device) if recipe.iterations else {}
    settings |= {"weights": weights_identity(recipe.weights), "input": convention}
    settings |= {"seed": params.seed, "stream": stream, "classes": list(classes)}
    settings |= {"stack": params.stack} if stream == "temporal" else {}
    moved = stream == "temporal" and recipe.iterations and params.camera != "none"
    settings |= {"camera": params.camera} if moved else {}
    return settings


def _train(
    params: Params,
    stream: str,
    settings: dict[str, Any],
    learnt: ClipFiles,
    held_out: ClipFiles,
    net: "VGG16",
    **running: Any,
) -> "list[Step]":
    from han_core.finetune.batches import StillImages
    from han_core.finetune.loop import finetune
    from han_core.nets.clip_inputs import FlowClips, FrameClips

    def source(files: ClipFiles) -> "TrainingClips":
        spatial = stream == "spatial"
        return FrameClips(files.paths, files.labels) if spatial else FlowClips(files.paths, files.labels, params.stack)

    return finetune(
        net,
        source(learnt),
        schedule(getattr(params.finetune, stream), settings["precision"]),
        prepare=StillImages("frames" if stream == "spatial" else "flow", settings["input"], settings["precision"]),
        seed=params.seed,
        validation=source(held_out) if held_out.clips else None,
        **running,
    )


def schedule(recipe: Recipe, precision: "Precision") -> "SGDSchedule":
    """The training part of a recipe."""
    from han_core.finetune.augment import Augmentation
    from han_core.finetune.sgd import SGDSchedule

    views = Augmentation(recipe.scales, recipe.max_distort, recipe.corner_crops, recipe.flip)
    names = SGDSchedule.__dataclass_fields__.keys() - {"views", "precision"}
    return SGDSchedule(**recipe.model_dump(include=names), precision=precision, views=views)


def _write_net(settings: dict[str, Any], path: Path, net: "VGG16", facts: dict[str, str]) -> None:
    """The net with what a person, or stage cubes, needs to know of it; a class list, but nothing of the split.

    Args:
        facts: further entries of the metadata.
    """
    from han_core.nets.net_file import write_net

    apart = ("camera", "classes", "input", "seed", "stack", "stream")
    recipe = {"iterations": 0} | {name: value for name, value in settings.items() if name not in apart}
    metadata = {
        "architecture": "torchvision vgg16",
        "classes": json.dumps(settings["classes"], ensure_ascii=False),
        **facts,
        "input": settings["input"],
        "recipe": json.dumps(recipe, sort_keys=True),
        "seed": str(settings["seed"]),
        "stack": str(settings.get("stack", 0)),
        "stream": settings["stream"],
    } | {name: settings[name] for name in ("camera",) if name in settings}
    write_net(path, net, metadata)


def _write_taken(settings: dict[str, Any], path: Path, net: "TorchvisionNet", facts: dict[str, str]) -> None:
    """As :func:`_write_net`, of a net other than VGG-16; its last layer is nobody's, so it names no classes."""
    from han_core.nets.torchvision_file import write_torchvision_net

    metadata = {"stack": "0"} | {name: str(value) for name, value in settings.items() if name != "weights"}
    metadata |= {"recipe": json.dumps({"iterations": 0, "weights": settings["weights"]}, sort_keys=True)}
    metadata |= {name: facts[name] for name in ("fingerprint", "tools")}
    write_torchvision_net(path, net, metadata)


if __name__ == "__main__":
    main()
