"""Stage ``tdd_svm``: the rows of TDD [20], linear SVMs on sums of kernels, one class against the rest.

Family ``tdd``: row ``tdd`` adds the kernels of both streams, all layers and both normalisations; row ``tdd_idt`` those
of the trajectories' own channels, too (the paper's row). Family ``tdd_cubes``: what the cubes give in place of maps of
every frame. Writes ``data/<dataset>/predictions/<family>-<split>``.
"""

from pathlib import Path

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.kernel_rows import Channel, make_rows
from pipeline.params import Params, load_params, params_option

STREAMS = ("spatial", "temporal")


@click.command(help=__doc__)
@params_option
@click.option("--family", required=True, type=click.Choice(["tdd", "tdd_cubes"]), help="The rows that are made.")
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose test clips are classified.")
def main(params_path: Path, family: str, split: int) -> None:
    """Fit SVMs to the training clips of one split and classify the test clips."""
    params = load_params(params_path)

    stage = f"{family.replace('_', '-')}-svm"
    with told_plainly(f"{stage} {split}"), counted(params, f"{stage}@{split}"):
        rows = tdd_rows(params, split) if family == "tdd" else {"tdd_cubes": cubes_channels(params, split)}
        make_rows(params, family, split, rows)


def tdd_rows(params: Params, split: int) -> dict[str, list[Channel]]:
    """Row -> the channels that are added."""
    from han_core.baselines.tdd.channels import NORMALISATIONS, channel_name
    from pipeline.paths import Paths

    paths = Paths.of(params)
    pooled = [
        (paths.tdd(stream, split), channel_name(layer, normalisation))
        for stream in STREAMS
        for layer in getattr(params.tdd.layers, stream)
        for normalisation in NORMALISATIONS
    ]
    return {"tdd": pooled, "tdd_idt": [*pooled, *((paths.fisher(split), name) for name in params.fisher.channels)]}


def cubes_channels(params: Params, split: int) -> list[Channel]:
    """The channels that are added in row ``tdd_cubes``."""
    from han_core.baselines.tdd.channels import NORMALISATIONS, channel_name
    from pipeline.paths import Paths

    folder = Paths.of(params).tdd_cubes(split)
    return [(folder, channel_name(stream, normalisation)) for stream in STREAMS for normalisation in NORMALISATIONS]


if __name__ == "__main__":
    main()
