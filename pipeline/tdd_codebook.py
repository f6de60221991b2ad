"""Stage ``tdd_codebook``: what the descriptors of TDD [20] are encoded with,
``models/<dataset>/codebooks/tdd-<stream>-<split>.safetensors``.

A projection (PCA, whitened) and a Gaussian mixture for each layer and normalisation, which all sizes of the net's input
share, fitted to the descriptors that stage ``tdd_samples`` drew from training clips.
"""

from collections.abc import Iterable
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


@click.command(help=__doc__)
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True, help="The split whose samples are used.")
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Fit the codebook of one stream and split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"tdd_codebook {stream}-{split}"), counted(params, f"tdd-codebook-{stream}@{split}") as cost:
        cost.made = run(params, stream, split, ClipCache.from_environment(verify=params.run.verify))


def run(params: Params, stream: str, split: int, cache: "ClipCache") -> int:
    """Run the stage; 0 if the codebook was in the cache, else 1."""
    from han_core.clipfile.trailer import read_trailer
    from pipeline.paths import Paths

    paths, wanted = Paths.of(params), params.tdd
    folder = paths.tdd_samples(stream, split)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.h5"))}
    return make_codebook(
        f"tdd-codebook-{stream}",
        f"tdd_codebook {stream}-{split}",
        Fitting(wanted.gaussians, wanted.iterations, params.seed, wanted.dimensions, whiten=True),
        {name: read_trailer(path).content for name, path in files.items()},
        lambda: gathered(files.values()),
        paths.codebook(f"tdd-{stream}", split),
        cache,
    )


def gathered(files: Iterable[Path]) -> "dict[str, np.ndarray]":
    """Channel -> (n, C) float16, all samples of these files one after the other; empty where there are none.

    Raises:
        ClipFileError: a file is damaged, or they are not of the same channels.
    """
    import numpy as np

    from han_core.baselines.tdd.samplefile import read_samples
    from han_core.clipfile.trailer import REMAKE, ClipFileError

    parts: dict[str, list[np.ndarray]] = {}
    for path in files:
        found = read_samples(path)
        if parts and found.keys() != parts.keys():
            raise ClipFileError(f"{path}: holds other channels than the files before it. {REMAKE}")
        for channel, values in found.items():
            parts.setdefault(channel, []).append(values)
    return {channel: np.concatenate(values) for channel, values in parts.items()}


if __name__ == "__main__":
    main()
