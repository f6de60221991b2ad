"""Stage ``stacked_svm``: rows ``sfv`` and ``idt_sfv`` [13], linear SVMs, one class against the rest.

``sfv`` has the kernel of the stacked Fisher vectors alone; ``idt_sfv`` adds the kernels of row ``idt``, which is the
paper's system. Writes ``data/<dataset>/predictions/stacked-<split>``.
"""

from pathlib import Path

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.kernel_rows import make_rows
from pipeline.params import Params, load_params, params_option


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose test clips are classified.")
def main(params_path: Path, split: int) -> None:
    """Fit SVMs to the training clips of one split and classify the test clips."""
    params = load_params(params_path)

    with told_plainly(f"stacked-svm {split}"), counted(params, f"stacked-svm@{split}"):
        run(params, split)


def run(params: Params, split: int) -> None:
    """Run the stage."""
    from pipeline.paths import Paths

    paths = Paths.of(params)
    own = [(paths.stacked(split), "stacked")]
    rows = {"sfv": own, "idt_sfv": [*own, *((paths.fisher(split), channel) for channel in params.fisher.channels)]}
    make_rows(params, "stacked", split, rows)


if __name__ == "__main__":
    main()
