"""Stage ``tdd_cubes_codebook``: what the descriptors of row ``tdd_cubes`` are encoded with,
``models/<dataset>/codebooks/tdd_cubes-<split>.safetensors``.

Descriptors drawn from the split's training clips, each clip's part in proportion to its trajectories, give a projection
and a Gaussian mixture for each stream and normalisation.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.fitted_codebook import Fitting, make_codebook
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    import numpy as np

    from han_core.cache.store import ClipCache
    from han_core.cubes.folder import StoredClip


@click.command(help=__doc__)
@click.option("--split", type=click.IntRange(min=1), required=True, help="The split whose training clips are used.")
@params_option
def main(split: int, params_path: Path) -> None:
    """Fit the codebook of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"tdd_cubes_codebook {split}"), counted(params, f"tdd-cubes-codebook@{split}") as cost:
        cost.made = run(params, split, ClipCache.from_environment(verify=params.run.verify))


def run(params: Params, split: int, cache: "ClipCache") -> int:
    """Run the stage; 0 if the codebook was in the cache, else 1."""
    from han_core.clipfile.trailer import read_trailer
    from han_core.clips import read_clips
    from han_core.cubes.folder import CubeFolder
    from pipeline.execution.ledger import read_failures
    from pipeline.paths import Paths, clip_file

    paths, wanted = Paths.of(params), params.tdd_cubes
    table = read_clips(paths.clips)
    table.require(split)
    folders = {stream: CubeFolder(paths.cubes(stream, split)) for stream in ("spatial", "temporal")}
    ledgers = (paths.trajectories, *(folder.folder for folder in folders.values()))
    failed = {key for folder in ledgers for key in read_failures(folder)}
    files = {
        clip.key: (
            clip_file(paths.trajectories, clip.class_name, clip.name),
            {stream: folder.find(clip.class_name, clip.name) for stream, folder in folders.items()},
        )
        for clip in table.select(split, "train")
        if clip.key not in failed
    }
    inputs = {
        key: " ".join(trailer.content for trailer in (read_trailer(tracks), *(clip.trailer for clip in cubes.values())))
        for key, (tracks, cubes) in files.items()
    }
    return make_codebook(
        "tdd-cubes-codebook",
        f"tdd_cubes_codebook {split}",
        Fitting(wanted.gaussians, wanted.iterations, params.seed, wanted.dimensions, whiten=True),
        inputs,
        lambda: draw_samples(files, wanted.samples, params.seed),
        paths.codebook("tdd_cubes", split),
        cache,
        drawing={"samples": wanted.samples},
    )


def draw_samples(
    files: "dict[str, tuple[Path, dict[str, StoredClip]]]", count: int, seed: int
) -> "dict[str, np.ndarray]":
    """Descriptors drawn from all clips, each clip's part in proportion to its tracks.

    Args:
        files: clip's key -> trajectory file, and stream -> cubes.
        count: how many, if there are so many.

    Returns:
        Channel -> (n, C) float16; empty where no clip has a track that crosses a frame of its cubes.

    Raises:
        ClipFileError: a file is missing or damaged.
        TracksError: trajectories are of another clip than the cubes.
    """
    import numpy as np

    from han_core.baselines.fisher.sampling import collect
    from han_core.baselines.tdd.from_cubes import crossing_tracks, cube_descriptors
    from han_core.cubes.folder import files_of
    from han_core.runs.progress import Progress

    with Progress("sample", 2 * len(files)) as progress:
        counts = {}
        for key, (trajectories, stored) in files.items():
            with files_of(stored) as cubes:
                counts[key] = len(crossing_tracks(trajectories, cubes))
            progress.advance()

        def read(key: str, rows: np.ndarray) -> dict[str, np.ndarray]:
            trajectories, stored = files[key]
            with files_of(stored) as cubes:
                found = cube_descriptors(cubes, crossing_tracks(trajectories, cubes).take(rows))
            progress.advance()
            return {channel: values.astype(np.float16) for channel, values in found.items()}

        return collect(counts, count, read, seed=seed)


if __name__ == "__main__":
    main()
