"""One run of the training loop: what the stages that fit a model to cube files have in common.

A run that was interrupted goes on from its last checkpoint, which lies beside the clip cache. Several processes:
``run.processes``, or by hand ``torchrun -m pipeline.train ..``.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.params import CnnLstm, Params, Train

if TYPE_CHECKING:
    from han_core.cubes.store import CubeStore
    from han_core.han.learner import Learner
    from han_core.han.training import Epoch, Pace, TrainingSchedule
    from han_core.runs.processes import Processes


def repeatable() -> None:
    """Make torch give the same bytes run after run."""
    import torch

    # cuBLAS gives the same bytes with a workspace of fixed size alone; read where it first multiplies.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # As use_deterministic_algorithms(True, warn_only=True), which also loads torch's compiler: two seconds more.
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what it did not write


def fit(
    params: Params,
    model: "Learner",
    schedule: "TrainingSchedule",
    store: "CubeStore",
    validation: "CubeStore | None",
    *,
    name: str,
    split: int,
    seed: int | None = None,
    identity: str,
    group: "Processes",
    write: Callable[[], Path],
) -> None:
    """Train ``model`` on a store and write what comes of it: the model, the learning curve
    ``plots/<dataset>/train/<name>-<split>`` epoch by epoch, and a line in the logs.

    Args:
        seed: part of those names (``<name>-<split>-seed<seed>``) for a model that is trained with several.
        validation: clips held out, which are only looked at.
        identity: the run's fingerprint, of :func:`run_identity`.
        group: the processes that train together; its main one writes.
        write: writes the trained model and returns the path of its file.
    """
    from han_core.cache.folders import probe
    from han_core.cache.store import ClipCache
    from han_core.cubes.placement import placed
    from han_core.han.training import train
    from han_core.runs.progress import Progress
    from pipeline.curve import Curve
    from pipeline.execution.resume import run_checkpoint
    from pipeline.paths import Paths, run_name

    paths, this = Paths.of(params), run_name(name, split, seed)
    title = f"train {this}"
    features, place = placed(store, params.run.store, group.device, learnt=True)
    beside = store.bytes_in_memory if place == "memory" else 0
    held_out = placed(validation, params.run.store, group.device, beside=beside)[0] if validation else None
    cache = ClipCache.from_environment()
    if group.main:
        probe(cache.root)
        cache.sweep()
    checkpoint = run_checkpoint(title, cache, identity, seconds=params.run.checkpoint_seconds, main=group.main)
    if group.main:
        frames, _, _ = next(iter(store.shapes.values()))
        chosen = "" if seed is None else f", seed {seed}"
        click.echo(
            f"train {name}, split {split}{chosen}: {len(store)} clips ({len(store.missing)} without cubes), "
            f"{len(validation) if validation else 0} held out, T = {frames}, "
            f"{sum(p.numel() for p in model.parameters()):,} weights; "
            f"{store.bytes_in_memory / 1e6:,.0f} MB of features ({place}), processes: {group.size}, on {group.device}"
        )
    started = time.monotonic()
    epochs: list[Epoch] = []
    paces: list[Pace] = []
    with (
        Progress(title, schedule.epochs, unit="epoch", quiet=not group.main) as progress,
        Curve(paths.training_curve(name, split, seed)) if group.main else nullcontext() as curve,
    ):

        def on_epoch(epoch: "Epoch", pace: "Pace | None") -> None:
            epochs.append(epoch)
            if curve is not None:
                figures = asdict(epoch)
                curve.add(figures.pop("number"), figures)
            note = f"loss {epoch.loss:.3f} top-1 {epoch.top1:.3f}"
            if pace:
                paces.append(pace)
                note += f" {pace.clips_per_second:.0f} clips/s, {100 * pace.waiting:.0f} % waiting for data"
            progress.advance(note=note)

        train(model, features, schedule, validation=held_out, processes=group, checkpoint=checkpoint, on_epoch=on_epoch)
    if not group.main:
        return
    written = write()
    checkpoint.discard()
    line = f"{title}: loss {epochs[-1].loss:.4f}, {time.monotonic() - started:.1f} s"
    if len(paces) < len(epochs):
        line += f", {len(epochs) - len(paces)} of {len(epochs)} epochs from an earlier run"
    if paces:
        rate, waiting = (sum(getattr(p, key) for p in paces) / len(paces) for key in ("clips_per_second", "waiting"))
        line += f", {rate:.0f} clips/s, {100 * waiting:.1f} % of the time waiting for data"
    log = paths.log(f"train-{this}")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(line + "\n", encoding="utf-8")
    click.echo(f"{line} -> {written}")


def schedule(settings: Train | CnnLstm, seed: int) -> "TrainingSchedule":
    """The part of a group of params that says how to train."""
    from han_core.han.training import TrainingSchedule

    return TrainingSchedule(
        epochs=settings.epochs,
        batch=settings.batch,
        optimizer=settings.optimizer.name,
        learning_rate=settings.optimizer.learning_rate,
        rho=settings.optimizer.rho,
        eps=settings.optimizer.eps,
        weight_decay=settings.optimizer.weight_decay,
        clip_gradient=settings.clip_gradient,
        attention_rate=settings.attention_rate if isinstance(settings, Train) else 1.0,
        standardize=settings.standardize,
        views=settings.views if isinstance(settings, Train) else (),
        shift=settings.shift if isinstance(settings, Train) else 0,
        seed=seed,
    )


def run_identity(stage: str, settings: Mapping[str, Any], store: "CubeStore", validation: "CubeStore | None") -> str:
    """The fingerprint of a run: all that it depends on.

    Args:
        stage: its name in ``dvc.yaml``, which names the code.
        settings: everything else but the clips.
    """
    from han_core.cache.fingerprint import fingerprint
    from pipeline.execution.code import stage_code

    inputs = {
        f"{role} {clip.key} {clip.label}": identity
        for role, part in (("train", store), ("validation", validation))
        if part is not None
        for clip, identity in zip(part.clips, part.contents().values(), strict=True)
    }
    return fingerprint(stage, stage_code(stage), settings, inputs)
