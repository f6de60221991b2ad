"""Stage ``finetune``: one VGG-16 of a stream, trained on the training clips of a split.

Reads the clip files of the stream (frames or flow) and writes the net and its training curve. Both are kept in the
cache under the net's fingerprint, so a net is trained once, and nets that are used as they are (``iterations: 0``)
are one file for all splits.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.errors import HanError
from pipeline.params import Params, Recipe, load_params, params_option

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.cache import ClipCache
    from han_core.datasets.clips import Clip, ClipTable
    from han_core.finetune import Schedule, Step
    from han_core.two_stream import VGG16, Convention

VERSION = 1
_COLUMNS = ("iteration", "loss", "learning_rate", "top1")
_INITIAL = ("weights", "input", "fc_size")  # of the recipe: all that matters to a net that is not trained


@click.command()
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Fine-tune the net of one stream on the training clips of one split."""
    params = load_params(params_path)

    from han_core.cache import ClipCache

    try:
        finetune_net(params, stream, split, ClipCache.from_environment(verify=params.run.verify))
    except HanError as error:
        raise click.ClickException(f"finetune {stream}-{split}: {error}") from None


def finetune_net(params: Params, stream: str, split: int, cache: "ClipCache") -> None:
    """Make the net of a stream and split, or take it from the cache."""
    from han_core.datasets.clips import ClipTableError, read_clips
    from han_core.weights import resolve_convention
    from pipeline.paths import Paths

    recipe: Recipe = getattr(params.finetune, stream)
    paths = Paths.of(params)
    table = read_clips(paths.clips)
    if split not in table.splits:
        known = ", ".join(map(str, table.splits))
        raise ClipTableError(f"{paths.clips}: has no split {split}, only {known}; set splits and run stage prepare")
    convention = resolve_convention(recipe.weights, recipe.input)
    clips, files = [], []
    if recipe.iterations:
        clips, files = training_files(paths.frames if stream == "spatial" else paths.flow, table, split)
    identity = net_fingerprint(params, stream, convention, table.classes, clips, files)

    reused = all(cache.find("nets", identity, suffix) for suffix in (".csv", ".safetensors"))
    if not reused:
        net, curve = _make_net(params, stream, split, convention, len(table.classes), clips, files)
        with cache.create("nets", identity, ".csv") as path:
            _write_curve(path, curve)
        with cache.create("nets", identity, ".safetensors") as path:
            _write_net(path, net, params, stream, convention, table.classes, identity)
    net_path = replace(paths, nets=paths.dataset).net(stream, split)
    curve_path = paths.plots / "finetune" / f"{stream}-{split}.csv"
    cache.link("nets", identity, net_path, ".safetensors")
    cache.link("nets", identity, curve_path, ".csv")
    how = "reused" if reused else f"{recipe.iterations} iterations on {len(clips)} clips"
    click.echo(f"finetune {stream}-{split}: {how}; net in {net_path}, curve in {curve_path}")


def training_files(folder: Path, table: "ClipTable", split: int) -> tuple[list["Clip"], list[Path]]:
    """Training clips of a split and their files, without those that an earlier stage listed as failed."""
    from pipeline.paths import clip_file
    from pipeline.runner import read_failures

    failed = read_failures(folder)
    clips = [clip for clip in table.select(split, "train") if clip.name not in failed]
    return clips, [clip_file(folder, clip.class_name, clip.name) for clip in clips]


def net_fingerprint(
    params: Params,
    stream: str,
    convention: "Convention",
    classes: Sequence[str],
    clips: Iterable["Clip"],
    files: Iterable[Path],
) -> str:
    """Identity of a net. One that is not trained depends neither on the recipe's schedule nor on any clip."""
    from han_core.cache import fingerprint
    from han_core.clipfile import read_trailer
    from han_core.weights import weights_identity

    recipe: Recipe = getattr(params.finetune, stream)
    settings = recipe.model_dump(mode="json", include=None if recipe.iterations else set(_INITIAL))
    settings |= {"weights": weights_identity(recipe.weights), "input": convention}
    settings |= {"seed": params.seed, "stream": stream, "classes": list(classes)}
    settings |= {"stack": params.stack} if stream == "temporal" else {}
    inputs = {
        clip.name: f"{clip.label} {read_trailer(path).fingerprint}" for clip, path in zip(clips, files, strict=True)
    }
    return fingerprint("finetune", VERSION, settings, inputs)


def _make_net(
    params: Params,
    stream: str,
    split: int,
    convention: "Convention",
    classes: int,
    clips: Sequence["Clip"],
    files: Sequence[Path],
) -> tuple["VGG16", list["Step"]]:
    from han_core.finetune import FlowClips, FrameClips, Step, finetune
    from han_core.weights import initial_net
    from pipeline.device import choose_device
    from pipeline.progress import Progress
    from pipeline.workers import worker_count

    recipe: Recipe = getattr(params.finetune, stream)
    net = initial_net(
        recipe.weights,
        classes=classes,
        fc_size=recipe.fc_size,
        in_channels=3 if stream == "spatial" else 2 * params.stack,
        dropout=recipe.dropout,
        seed=params.seed,
    )
    curve: list[Step] = []
    if not recipe.iterations:
        return net, curve
    assert all(clip.roles[split] == "train" for clip in clips), "only training clips may be learned from"
    labels = [clip.label for clip in clips]
    source = FrameClips(files, labels) if stream == "spatial" else FlowClips(files, labels, params.stack)
    with Progress(f"finetune {stream}-{split}", recipe.iterations, unit="iteration") as progress:

        def on_step(step: Step) -> None:
            curve.append(step)
            progress.advance(note=f"loss {step.loss:.3f} top-1 {step.top1:.2f}")

        finetune(
            net,
            source,
            schedule(recipe),
            convention=convention,
            seed=params.seed,
            device=choose_device(params.run.device),
            readers=worker_count(params.run),
            on_step=on_step,
        )
    return net, curve


def schedule(recipe: Recipe) -> "Schedule":
    """The training part of a recipe."""
    from han_core.augment import Augmentation
    from han_core.finetune import Schedule

    augmentation = Augmentation(recipe.scales, recipe.corner_crops, recipe.flip)
    names = Schedule.__dataclass_fields__.keys() - {"augmentation"}
    return Schedule(**recipe.model_dump(include=names), augmentation=augmentation)


def _write_net(
    path: Path,
    net: "VGG16",
    params: Params,
    stream: str,
    convention: "Convention",
    classes: Sequence[str],
    identity: str,
) -> None:
    """The net with what a person, or stage cubes, needs to know of it; a class list, but nothing of the split."""
    from han_core.weights import weights_identity, write_net

    recipe: Recipe = getattr(params.finetune, stream)
    trained = recipe.model_dump(mode="json", include=None if recipe.iterations else {*_INITIAL, "iterations"})
    trained["weights"] = weights_identity(recipe.weights)
    metadata = {
        "architecture": "torchvision vgg16",
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "fingerprint": identity,
        "input": convention,
        "recipe": json.dumps(trained, sort_keys=True),
        "seed": str(params.seed),
        "stack": str(params.stack if stream == "temporal" else 0),
        "stream": stream,
    }
    write_net(path, net, metadata)


def _write_curve(path: Path, curve: Iterable["Step"]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for step in curve:
            writer.writerow([step.iteration, f"{step.loss:.6g}", f"{step.learning_rate:.6g}", f"{step.top1:.4g}"])


if __name__ == "__main__":
    main()
