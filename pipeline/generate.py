"""Stage ``generate``: write the videos of the synthetic dataset to ``data/<dataset>/raw``."""

from pathlib import Path

import click

from han_core.datasets.synthetic.generate import BOXES, count_clips, generate_synthetic
from han_core.runs.progress import Progress
from pipeline.execution.told import told_plainly
from pipeline.params import ParamsError, load_params, params_option, synthetic_spec


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Generate the synthetic dataset: real video files and the box of the figure in every frame."""
    params = load_params(params_path)
    if params.dataset.kind != "synthetic":
        raise ParamsError(
            f"{params_path}: dataset.kind is {params.dataset.kind}; only synthetic videos are generated. "
            f"Nothing is written to {params.dataset.root}."
        )
    root = params.dataset.root
    spec = synthetic_spec(params)
    with told_plainly("generate"), Progress("generate", count_clips(spec), unit="video") as progress:
        count = generate_synthetic(root, spec, progress.advance)
    click.echo(f"generate: {count} videos in {root}, boxes in {root / BOXES}")


if __name__ == "__main__":
    main()
