"""Stage ``finetune``: one VGG-16 of a stream, trained on the training clips of a split.

Reads the clip files of the stream (frames or flow) and writes the net and its training curve, the latter as it grows.
Both are kept in the cache under the net's fingerprint, so a net is trained once, and nets that are used as they are
(``iterations: 0``) are one file for all splits. A run that was killed resumes from its last checkpoint, which lies
beside the cache.
"""

import json
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.curve import Curve, add_thinned
from pipeline.execution.launch import relaunched
from pipeline.execution.told import told_plainly
from pipeline.params import Params, Recipe, load_params, params_option

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import torch

    from han_core.cache.store import ClipCache
    from han_core.clips import Clip, ClipTable
    from han_core.devices import Precision
    from han_core.finetune.loop import Step
    from han_core.finetune.sgd import SGDSchedule
    from han_core.nets.clip_inputs import TrainingClips
    from han_core.nets.preprocess import Convention
    from han_core.nets.vgg16 import VGG16
    from han_core.runs.checkpoint import Checkpoint
    from han_core.runs.processes import Processes
    from pipeline.curve import Curve, add_thinned

log = logging.getLogger("pipeline.finetune")  # not __name__, which is __main__ when this file is the command

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
    import torch

    from han_core.cache.fingerprint import fingerprint, without_code
    from han_core.cache.folders import probe
    from han_core.clipfile.provenance import made_with
    from han_core.clips import read_clips
    from han_core.nets.weights import knows_classes, resolve_convention
    from pipeline.curve import draw_record, write_record
    from pipeline.execution.resume import run_checkpoint
    from pipeline.execution.stagelog import stage_log
    from pipeline.paths import Paths

    recipe: Recipe = getattr(params.finetune, stream)
    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    convention = resolve_convention(recipe.weights, recipe.input)
    learnt, held_out = ClipFiles(), ClipFiles()
    if recipe.iterations:
        folder, _ = paths.source(stream)
        learnt = clip_files(folder, table, split, "train")
        held_out = clip_files(folder, table, split, "validation") if recipe.validate_every else held_out
    settings = net_settings(params, stream, convention, table.classes, group.device)
    identity = net_fingerprint(settings, learnt, held_out)

    curve_path = paths.plots / "finetune" / f"{stream}-{split}"
    reused = all(cache.find("nets", identity, suffix) for suffix in (".csv", ".safetensors"))
    if reused and group.main:  # killed between publishing the net and this, a run leaves its state behind
        cache.checkpoint_path(identity).unlink(missing_ok=True)
    if not reused:
        probe(cache.root)
        cache.sweep()
        name = f"finetune {stream}-{split}"
        seconds = params.run.checkpoint_seconds
        checkpoint = run_checkpoint(name, cache, identity, seconds=seconds, main=group.main)
        with stage_log(paths.log(f"finetune-{stream}-{split}")) if group.main else nullcontext():
            shown = Curve(curve_path) if group.main else None
            net, curve = _make_net(params, stream, split, settings, learnt, held_out, checkpoint, group, shown)
        if group.main:
            with cache.create("nets", identity, ".csv") as path:
                write_record(path, ((step.iteration, figures_of(step)) for step in curve))
            with cache.create("nets", identity, ".safetensors") as path:
                learnt_classes = recipe.iterations or knows_classes(recipe.weights, table.classes)
                facts = {"fingerprint": without_code(identity), "classifier": "trained" if learnt_classes else "random"}
                facts |= {"data": fingerprint("training clips", "", {}, learnt.identity())} if learnt.clips else {}
                facts |= {"tools": json.dumps(made_with(torch_threads=torch.get_num_threads()), sort_keys=True)}
                _write_net(path, net, settings, facts)
            checkpoint.discard()
    if not group.main:
        return
    net_path = replace(paths, nets=paths.dataset).net(stream, split)
    cache.link("nets", identity, net_path, ".safetensors")
    if reused:
        draw_record(cache.find("nets", identity, ".csv"), curve_path, recipe.iterations)
    how = "reused" if reused else f"{recipe.iterations} iterations on {len(learnt.clips)} clips"
    click.echo(f"finetune {stream}-{split}: {how}; net in {net_path}, curve in {curve_path}")


@dataclass(frozen=True)
class ClipFiles:
    """Clips and their files of one kind."""

    clips: "tuple[Clip, ...]" = ()
    paths: tuple[Path, ...] = ()

    def identity(self) -> dict[str, str]:
        """What a net that saw them depends on: name of each clip -> its label and its file's content."""
        from han_core.clipfile.trailer import read_trailer

        pairs = zip(self.clips, self.paths, strict=True)
        return {clip.key: f"{clip.label} {read_trailer(path).content}" for clip, path in pairs}


def clip_files(folder: Path, table: "ClipTable", split: int, role: str) -> ClipFiles:
    """Clips of a role in a split, without those that an earlier stage listed as failed."""
    from pipeline.execution.ledger import read_failures
    from pipeline.paths import clip_file

    failed = read_failures(folder)
    clips = tuple(clip for clip in table.select(split, role) if clip.key not in failed)
    return ClipFiles(clips, tuple(clip_file(folder, clip.class_name, clip.name) for clip in clips))


def net_settings(
    params: Params, stream: str, convention: "Convention", classes: Sequence[str], device: "torch.device"
) -> dict[str, Any]:
    """All that decides what a net is, besides the clips; of one that is not trained, nothing of the schedule."""
    from han_core.devices import resolve_precision
    from han_core.nets.weights import weights_identity

    recipe: Recipe = getattr(params.finetune, stream)
    settings = recipe.model_dump(mode="json", include=None if recipe.iterations else set(_INITIAL))
    settings |= {"precision": resolve_precision(recipe.precision, device)} if recipe.iterations else {}
    settings |= {"weights": weights_identity(recipe.weights), "input": convention}
    settings |= {"seed": params.seed, "stream": stream, "classes": list(classes)}
    settings |= {"stack": params.stack} if stream == "temporal" else {}
    return settings


def net_fingerprint(settings: dict[str, Any], learnt: ClipFiles, held_out: ClipFiles) -> str:
    """Identity of a net and its curve; the latter alone is why clips that are only looked at matter."""
    from han_core.cache.fingerprint import fingerprint
    from pipeline.execution.code import stage_code

    looked_at = {f"validation {name}": value for name, value in held_out.identity().items()}
    code = stage_code(f"finetune-{settings['stream']}")
    return fingerprint("finetune", code, settings, learnt.identity() | looked_at)


def _make_net(
    params: Params,
    stream: str,
    split: int,
    settings: dict[str, Any],
    learnt: ClipFiles,
    held_out: ClipFiles,
    checkpoint: "Checkpoint",
    group: "Processes",
    shown: "Curve | None",
) -> tuple["VGG16", list["Step"]]:
    """Train, or take the initial net; ``shown`` shows the curve, in the process that speaks."""
    from han_core.finetune.loop import finetune
    from han_core.nets.clip_inputs import FlowClips, FrameClips
    from han_core.nets.weights import initial_net
    from han_core.runs.progress import Progress
    from pipeline.execution.workers import worker_count

    recipe: Recipe = getattr(params.finetune, stream)
    net = initial_net(
        recipe.weights,
        classes=len(settings["classes"]),
        fc_size=recipe.fc_size,
        in_channels=3 if stream == "spatial" else 2 * params.stack,
        dropout=recipe.dropout,
        seed=params.seed,
    )
    if not recipe.iterations:
        with shown or nullcontext():
            return net, []
    assert all(clip.roles[split] == "train" for clip in learnt.clips), "only training clips may be learned from"

    def source(files: ClipFiles) -> "TrainingClips":
        labels = [clip.label for clip in files.clips]
        return FrameClips(files.paths, labels) if stream == "spatial" else FlowClips(files.paths, labels, params.stack)

    started, computed = time.monotonic(), 0
    with (
        Progress(f"finetune {stream}-{split}", recipe.iterations, unit="iteration", quiet=not group.main) as progress,
        shown or nullcontext(),
    ):

        def on_resume(steps: "list[Step]") -> None:
            for step in steps if shown else ():
                add_thinned(shown, step.iteration, figures_of(step), recipe.iterations)

        def on_step(step: "Step") -> None:
            nonlocal computed
            computed += 1
            if shown:
                add_thinned(shown, step.iteration, figures_of(step), recipe.iterations)
                seen = "" if step.validation is None else f" validation {step.validation:.2f}"
                progress.advance(step.iteration - progress.done, f"loss {step.loss:.3f} top-1 {step.top1:.2f}{seen}")

        curve = finetune(
            net,
            source(learnt),
            schedule(recipe, settings["precision"]),
            convention=settings["input"],
            seed=params.seed,
            processes=group,
            readers=worker_count(params.run),
            validation=source(held_out) if held_out.clips else None,
            checkpoint=checkpoint,
            on_resume=on_resume,
            on_step=on_step,
        )
    seconds = time.monotonic() - started
    log.info(
        "finetune %s-%d: %d iterations in %.1f s, %.2f images/s, processes: %d, on %s in %s",
        *(stream, split, computed, seconds, computed * recipe.batch / seconds),
        *(group.size, group.device, settings["precision"]),
    )
    return net, curve


def schedule(recipe: Recipe, precision: "Precision") -> "SGDSchedule":
    """The training part of a recipe."""
    from han_core.finetune.augment import Augmentation
    from han_core.finetune.sgd import SGDSchedule

    augmentation = Augmentation(recipe.scales, recipe.max_distort, recipe.corner_crops, recipe.flip)
    names = SGDSchedule.__dataclass_fields__.keys() - {"augmentation", "precision"}
    return SGDSchedule(**recipe.model_dump(include=names), precision=precision, augmentation=augmentation)


def _write_net(path: Path, net: "VGG16", settings: dict[str, Any], facts: dict[str, str]) -> None:
    """The net with what a person, or stage cubes, needs to know of it; a class list, but nothing of the split.

    Args:
        facts: further entries of the metadata.
    """
    from han_core.nets.net_file import write_net

    apart = ("classes", "input", "seed", "stack", "stream")
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
    }
    write_net(path, net, metadata)


def figures_of(step: "Step") -> dict[str, float | None]:
    """What is shown of one iteration, rounded."""
    validation = None if step.validation is None else float(f"{step.validation:.4g}")
    return {
        "loss": float(f"{step.loss:.6g}"),
        "learning_rate": float(f"{step.learning_rate:.6g}"),
        "top1": float(f"{step.top1:.4g}"),
        "validation_top1": validation,
    }


if __name__ == "__main__":
    main()
