"""Stage ``codebook``: what Fisher vectors are taken against, ``models/<dataset>/codebooks/fisher-<split>.safetensors``.

A sample of the descriptors of one split's training clips, each clip's part in proportion to its trajectories, gives the
projection (PCA) and the Gaussian mixture of each channel. No other clip is looked at.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.cache.store import ClipCache


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose training clips are used.")
def main(params_path: Path, split: int) -> None:
    """Make the codebook of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"codebook {split}"), counted(params, f"codebook@{split}") as cost:
        cost.made = run(params, split, ClipCache.from_environment(verify=params.run.verify))


def run(params: Params, split: int, cache: "ClipCache") -> int:
    """Run the stage; 0 if the codebook was in the cache, else 1."""
    from threadpoolctl import threadpool_limits

    from han_core.baselines.fisher.codebook import CodebookError, fit_codebook, write_codebook
    from han_core.cache.fingerprint import fingerprint, without_code
    from han_core.cache.folders import probe
    from han_core.clipfile.provenance import made_with
    from han_core.clipfile.trailer import read_trailer
    from han_core.clips import read_clips
    from han_core.devices import cores
    from han_core.runs.progress import Progress
    from pipeline.execution.code import stage_code
    from pipeline.execution.ledger import read_failures
    from pipeline.paths import Paths, clip_file

    paths, wanted = Paths.of(params), params.fisher
    table = read_clips(paths.clips)
    table.require(split)
    failed = read_failures(paths.trajectories)
    files = {
        clip.key: clip_file(paths.trajectories, clip.class_name, clip.name)
        for clip in table.select(split, "train")
        if clip.key not in failed
    }
    settings = wanted.model_dump(mode="json", include={"channels", "gaussians", "samples", "iterations"})
    settings |= {"seed": params.seed}
    contents = {key: read_trailer(path).content for key, path in files.items()}
    identity = fingerprint("codebook", stage_code("codebook"), settings, contents)
    output = paths.codebook("fisher", split)
    reused = cache.find("codebooks", identity, ".safetensors") is not None
    if not reused:
        probe(cache.root)
        cache.sweep()
        samples = draw_samples(files, wanted.channels, wanted.samples, params.seed)
        if not samples:
            raise CodebookError(
                f"{paths.trajectories}: no training clip of split {split} has a trajectory; lower "
                "trajectories.quality, or set fisher.splits to []"
            )
        with Progress(f"codebook {split}", len(samples) * wanted.iterations, unit="iteration") as progress:

            def on_iteration(channel: str, iteration: int, likelihood: float) -> None:
                progress.advance(note=f"{channel} {iteration}: log likelihood {likelihood:.3f}")

            with threadpool_limits(1):  # one core a channel: the matrices are small for more
                codebook = fit_codebook(
                    samples,
                    gaussians=wanted.gaussians,
                    seed=params.seed,
                    iterations=wanted.iterations,
                    threads=cores(),
                    on_iteration=on_iteration,
                )
            progress.advance(progress.total - progress.done)
        facts = {"fingerprint": without_code(identity), "settings": json.dumps(settings, sort_keys=True)}
        facts |= {"tools": json.dumps(made_with(), sort_keys=True)}
        with cache.create("codebooks", identity, ".safetensors") as path:
            write_codebook(path, codebook, facts)
    cache.link("codebooks", identity, output, ".safetensors")
    click.echo(f"codebook {split}: {'reused' if reused else f'of {len(files)} clips'} -> {output}")
    return int(not reused)


def draw_samples(files: dict[str, Path], channels: Sequence[str], count: int, seed: int) -> dict[str, np.ndarray]:
    """Descriptors drawn from all clips, each clip's part in proportion to its trajectories.

    Args:
        files: clip's key -> trajectory file.
        count: how many, if there are so many.

    Returns:
        Channel -> (n, D) float32; empty where no clip has a trajectory.

    Raises:
        ClipFileError: a file is missing or damaged.
    """
    from han_core.baselines.fisher.sampling import collect
    from han_core.baselines.trajectories.trajectoryfile import count_trajectories, read_trajectories
    from han_core.runs.progress import Progress

    counts = {key: count_trajectories(path) for key, path in files.items()}
    with Progress("sample", sum(map(bool, counts.values()))) as progress:

        def read(key: str, rows: np.ndarray) -> dict[str, np.ndarray]:
            found = read_trajectories(files[key], channels, points=False, rows=rows)
            progress.advance()
            return {channel: found.channel(channel) for channel in channels}

        return collect(counts, count, read, seed=seed)


if __name__ == "__main__":
    main()
