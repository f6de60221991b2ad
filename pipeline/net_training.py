"""A net that is trained on clip files, made once: what all stages that fine-tune a net have in common.

The net and its curve are kept in the cache under the net's fingerprint, so a net is trained once, and nets that are
used as they are (no iterations) are one file for all splits. A run that was killed resumes from its last checkpoint,
which lies beside the cache.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.curve import Curve, add_thinned, draw_record, write_record
from pipeline.params import Params, Run

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import torch

    from han_core.cache.store import ClipCache
    from han_core.clips import Clip, ClipTable
    from han_core.finetune.loop import Step
    from han_core.nets.layered import LayeredNet
    from han_core.runs.checkpoint import Checkpoint
    from han_core.runs.processes import Processes

log = logging.getLogger("pipeline.finetune")


@dataclass(frozen=True)
class ClipFiles:
    """Clips and their files of one kind."""

    clips: "tuple[Clip, ...]" = ()
    paths: tuple[Path, ...] = ()

    @property
    def labels(self) -> list[int]:
        return [clip.label for clip in self.clips]

    def identity(self) -> dict[str, str]:
        """What a net that saw them depends on: name of each clip -> its label and its file's content.

        Raises:
            ClipFileError: a file is missing, damaged, or another clip's.
        """
        from pipeline.execution.contents import contents_of

        pairs = list(zip(self.clips, self.paths, strict=True))
        contents = contents_of({clip.key: path for clip, path in pairs})
        return {clip.key: f"{clip.label} {contents[clip.key]}" for clip, _ in pairs}


def clip_files(folder: Path, table: "ClipTable", split: int, role: str) -> ClipFiles:
    """Clips of a role in a split, without those that an earlier stage listed as failed."""
    from pipeline.execution.ledger import read_failures
    from pipeline.paths import clip_file

    failed = read_failures(folder)
    clips = tuple(clip for clip in table.select(split, role) if clip.key not in failed)
    return ClipFiles(clips, tuple(clip_file(folder, clip.class_name, clip.name) for clip in clips))


def training_arithmetic(
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"], device: "torch.device"
) -> dict[str, str]:
    """How a device trains: part of what a net is.

    A net that was trained on a GPU is another one than the CPU's: each draws dropout from its own stream, and rounding
    grows from step to step.
    """
    from han_core.devices import resolve_precision

    found: dict[str, str] = {"precision": resolve_precision(precision, device)}
    return found if device.type == "cpu" else found | {"device": device.type}


@dataclass(frozen=True)
class NetJob:
    """A net to be made."""

    stage: str
    """In ``dvc.yaml``, e.g. ``finetune-spatial``: its packages are the code that makes the net."""
    name: str
    """Of the net, e.g. ``spatial-1``; also of its curve and its log."""
    split: int
    settings: Mapping[str, Any]
    """All that decides what the net is, besides the clips; with ``classes``, and ``precision`` if it is trained."""
    iterations: int
    """0 uses the initial net as it is."""
    batch: int
    learnt: ClipFiles
    held_out: ClipFiles
    """Clips that are only looked at. The curve alone depends on them."""
    output: Path
    knows_classes: bool
    """Whether the last layer of the initial net tells the classes apart."""
    initial: "Callable[[], LayeredNet]"
    train: "Callable[..., list[Step]]"
    """Trains the net that it is given; takes how it runs (processes, readers, checkpoint, ..) as
    :func:`han_core.finetune.loop.finetune` does."""
    write: "Callable[[Path, LayeredNet, dict[str, str]], None]"
    """Writes a net to a path, with further entries of its metadata."""

    def fingerprint(self) -> str:
        """Identity of the net and its curve."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        looked_at = {f"validation {name}": value for name, value in self.held_out.identity().items()}
        return fingerprint("finetune", stage_code(self.stage), self.settings, self.learnt.identity() | looked_at)


def make_net(job: NetJob, params: Params, cache: "ClipCache", group: "Processes") -> None:
    """Make a net, or take it from the cache."""
    from han_core.cache.folders import probe
    from pipeline.execution.costs import counted
    from pipeline.execution.resume import run_checkpoint
    from pipeline.execution.stagelog import stage_log
    from pipeline.paths import Paths

    paths, identity = Paths.of(params), job.fingerprint()
    curve_path = paths.plots / "finetune" / job.name
    reused = all(cache.find("nets", identity, suffix) for suffix in (".csv", ".safetensors"))
    if reused and group.main:  # killed between publishing the net and this, a run leaves its state behind
        cache.checkpoint_path(identity).unlink(missing_ok=True)
    if not reused:
        probe(cache.root)
        cache.sweep()
        seconds = params.run.checkpoint_seconds
        checkpoint = run_checkpoint(f"finetune {job.name}", cache, identity, seconds=seconds, main=group.main)
        shown = Curve(curve_path) if group.main else None
        with (
            stage_log(paths.log(f"finetune-{job.name}")) if group.main else nullcontext(),
            counted(params, f"{job.stage}@{job.split}") if group.main else nullcontext(),
        ):
            net, curve = _made(job, params, checkpoint, group, shown)
        if group.main:
            with cache.create("nets", identity, ".csv") as path:
                write_record(path, ((step.iteration, figures_of(step)) for step in curve))
            with cache.create("nets", identity, ".safetensors") as path:
                job.write(path, net, facts_of(job, identity))
            checkpoint.discard()
    if not group.main:
        return
    cache.link("nets", identity, job.output, ".safetensors")
    if reused:
        draw_record(cache.find("nets", identity, ".csv"), curve_path, job.iterations)
    trained = f"{job.iterations} iterations on {len(job.learnt.clips)} clips"
    how = "reused" if reused else trained if job.iterations else "not trained (iterations: 0)"
    click.echo(f"finetune {job.name}: {how}; net in {job.output}, curve in {curve_path}")


def facts_of(job: NetJob, identity: str) -> dict[str, str]:
    """What a net's file says of where it comes from."""
    import torch

    from han_core.cache.fingerprint import fingerprint, without_code
    from han_core.clipfile.provenance import made_with

    learnt_classes = job.iterations or job.knows_classes
    facts = {"fingerprint": without_code(identity), "classifier": "trained" if learnt_classes else "random"}
    seen = job.learnt
    facts |= {"data": fingerprint("training clips", "", {}, seen.identity())} if seen.clips else {}
    return facts | {"tools": json.dumps(made_with(torch_threads=torch.get_num_threads()), sort_keys=True)}


def _made(
    job: NetJob, params: Params, checkpoint: "Checkpoint", group: "Processes", shown: Curve | None
) -> tuple["LayeredNet", list["Step"]]:
    """Train, or take the initial net; ``shown`` shows the curve, in the process that speaks."""
    from han_core.runs.progress import Progress

    net = job.initial()
    if not job.iterations:
        with shown or nullcontext():
            return net, []
    seen = job.learnt.clips
    assert all(clip.roles[job.split] == "train" for clip in seen), "only training clips may be learned from"
    started, computed = time.monotonic(), 0
    with (
        Progress(f"finetune {job.name}", job.iterations, unit="iteration", quiet=not group.main) as progress,
        shown or nullcontext(),
    ):

        def on_resume(steps: "list[Step]") -> None:
            for step in steps if shown else ():
                add_thinned(shown, step.iteration, figures_of(step), job.iterations)

        def on_step(step: "Step") -> None:
            nonlocal computed
            computed += 1
            if shown:
                add_thinned(shown, step.iteration, figures_of(step), job.iterations)
                seen = "" if step.validation is None else f" validation {step.validation:.2f}"
                progress.advance(step.iteration - progress.done, f"loss {step.loss:.3f} top-1 {step.top1:.2f}{seen}")

        curve = job.train(
            net,
            processes=group,
            readers=readers_of_each(params.run),
            checkpoint=checkpoint,
            on_resume=on_resume,
            on_step=on_step,
        )
    seconds = time.monotonic() - started
    log.info(
        "finetune %s: %d iterations in %.1f s, %.2f samples/s, processes: %d, on %s in %s",
        *(job.name, computed, seconds, computed * job.batch / seconds),
        *(group.size, group.device, job.settings["precision"]),
    )
    return net, curve


def readers_of_each(run: Run) -> int:
    """Threads that read ahead in each of the processes that train together on this machine."""
    from pipeline.execution.workers import worker_count

    return max(1, worker_count(run) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def figures_of(step: "Step") -> dict[str, float | None]:
    """What is shown of one iteration, rounded."""
    validation = None if step.validation is None else float(f"{step.validation:.4g}")
    return {
        "loss": float(f"{step.loss:.6g}"),
        "learning_rate": float(f"{step.learning_rate:.6g}"),
        "top1": float(f"{step.top1:.4g}"),
        "validation_top1": validation,
    }
