"""Stage ``codebook``: what Fisher vectors are taken against, ``models/<dataset>/codebooks/fisher-<split>.safetensors``.

A sample of the descriptors of one split's training clips, each clip's part in proportion to its trajectories, gives the
projection (PCA, to half the dimensions) and the Gaussian mixture of each channel. No other clip is looked at.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.fitted_codebook import Fitting, make_codebook
from pipeline.params import Params, load_params, params_option
from pipeline.trajectory_samples import contents, draw_samples, training_files

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
    from pipeline.paths import Paths

    wanted = params.fisher
    files = {key: path for key, (_, path) in training_files(params, split).items()}
    return make_codebook(
        "codebook",
        f"codebook {split}",
        Fitting(wanted.gaussians, wanted.iterations, params.seed),
        contents(files),
        lambda: draw_samples(files, wanted.channels, wanted.samples, params.seed),
        Paths.of(params).codebook("fisher", split),
        cache,
        drawing={"samples": wanted.samples, "channels": list(wanted.channels)},
    )


if __name__ == "__main__":
    main()
