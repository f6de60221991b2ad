"""Stage ``fisher_svm``: rows ``hog``, ``hof``, ``mbh`` and ``idt`` [19], linear SVMs, one class against the rest.

Each row adds the kernels of some channels of the Fisher vectors, ``idt`` those of all. Writes
``data/<dataset>/predictions/fisher-<split>``; a row whose channel is not among ``fisher.channels`` is left out, with
the reason in ``left_out.csv``.
"""

from pathlib import Path

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.kernel_rows import make_rows
from pipeline.params import Params, load_params, params_option

CHANNELS = {"hog": ("hog",), "hof": ("hof",), "mbh": ("mbhx", "mbhy")}
"""Row -> its channels; ``idt`` has all that there are."""


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose test clips are classified.")
def main(params_path: Path, split: int) -> None:
    """Fit SVMs to the training clips of one split and classify the test clips."""
    params = load_params(params_path)

    with told_plainly(f"fisher-svm {split}"), counted(params, f"fisher-svm@{split}"):
        run(params, split)


def run(params: Params, split: int) -> None:
    """Run the stage."""
    from pipeline.paths import Paths

    folder, have = Paths.of(params).fisher(split), params.fisher.channels
    rows, left_out = {}, {}
    for row, channels in {**CHANNELS, "idt": have}.items():
        if lacking := [channel for channel in channels if channel not in have]:
            left_out[row] = f"channel {', '.join(lacking)} is not among fisher.channels"
        else:
            rows[row] = [(folder, channel) for channel in channels]
    make_rows(params, "fisher", split, rows, left_out)


if __name__ == "__main__":
    main()
