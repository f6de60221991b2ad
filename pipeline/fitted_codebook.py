"""Codebooks of Fisher vectors: fitted to a sample once, and kept in the cache."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # imports that take seconds, and --help should not
    import numpy as np

    from han_core.cache.store import ClipCache


@dataclass(frozen=True)
class Fitting:
    """How a codebook is fitted to its sample (:func:`han_core.baselines.fisher.codebook.fit_codebook`)."""

    gaussians: int
    iterations: int
    seed: int
    dimensions: int | None = None
    whiten: bool = False


def make_codebook(
    stage: str,
    name: str,
    fitting: Fitting,
    inputs: Mapping[str, str],
    draw: "Callable[[], dict[str, np.ndarray]]",
    output: Path,
    cache: "ClipCache",
    *,
    drawing: Mapping[str, object] | None = None,
) -> int:
    """Fit a codebook, or take it from the cache.

    Args:
        stage: in ``dvc.yaml``, whose code is part of the codebook's identity.
        name: shown.
        inputs: name -> content of all that the sample is drawn from.
        draw: the sample of each channel, (n, D); called only if it is needed.
        output: where the codebook is put.
        drawing: what else than inputs and seed decides what ``draw`` draws.

    Returns:
        0 if it was in the cache, else 1.

    Raises:
        CodebookError: there is no descriptor to fit it to.
    """
    from threadpoolctl import threadpool_limits

    from han_core.baselines.fisher.codebook import fit_codebook, write_codebook
    from han_core.baselines.fisher.stored import CodebookError
    from han_core.cache.fingerprint import fingerprint, without_code
    from han_core.cache.folders import probe
    from han_core.clipfile.provenance import made_with
    from han_core.devices import cores
    from han_core.runs.progress import Progress
    from pipeline.execution.code import stage_code

    settings = {**asdict(fitting), **(drawing or {})}
    identity = fingerprint(stage, stage_code(stage), settings, inputs)
    reused = cache.find("codebooks", identity, ".safetensors") is not None
    if not reused:
        probe(cache.root)
        cache.sweep()
        samples = draw()
        if not samples:
            raise CodebookError(
                "no training clip has a trajectory; lower trajectories.quality, or leave these rows out "
                "(`splits: []` in their group)"
            )
        with Progress(name, len(samples) * fitting.iterations, unit="iteration") as progress:

            def on_iteration(channel: str, iteration: int, likelihood: float) -> None:
                progress.advance(note=f"{channel} {iteration}: log likelihood {likelihood:.3f}")

            with threadpool_limits(1):  # one core a channel: the matrices are small for more
                codebook = fit_codebook(samples, **asdict(fitting), threads=cores(), on_iteration=on_iteration)
            progress.advance(progress.total - progress.done)
        facts = {"fingerprint": without_code(identity), "settings": json.dumps(settings, sort_keys=True)}
        facts |= {"tools": json.dumps(made_with(), sort_keys=True)}
        with cache.create("codebooks", identity, ".safetensors") as path:
            write_codebook(path, codebook, facts)
    cache.link("codebooks", identity, output, ".safetensors")
    click.echo(f"{name}: {'reused' if reused else f'of {len(inputs)} clips'} -> {output}")
    return int(not reused)
