"""Stage ``slow_fusion``: Table 2's spatio-temporal CNN [10].

Reads ``data/<dataset>/scores/slow_fusion-<split>``, writes ``data/<dataset>/predictions/slow_fusion-<split>``: the mean
over each test clip's windows. Where the net was not scored, ``left_out.csv`` says why.
"""

from pathlib import Path

import click

from pipeline.clip_scores import read_clip_scores
from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.not_scored import why_not_scored
from pipeline.params import Params, load_params, params_option

ROW = "slow_fusion"


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=int, help="The split whose test clips are classified.")
def main(params_path: Path, split: int) -> None:
    """Make the predictions of one split."""
    params = load_params(params_path)

    with told_plainly(f"slow_fusion {split}"), counted(params, f"slow-fusion@{split}"):
        run(params, split)


def run(params: Params, split: int) -> None:
    """Run the stage."""
    from han_core.clips import read_clips
    from han_core.predictions import probabilities_file, write_left_out, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    scores, folder = paths.scores("slow_fusion", split), paths.predictions(ROW, split)
    reason = why_not_scored(scores)
    found = None if reason else read_clip_scores(table.select(split, "test"), [scores])
    clear(folder)
    folder.mkdir(parents=True)
    if found:
        clips, (probabilities,) = found
        write_predictions(probabilities_file(folder, ROW), [clip.key for clip in clips], table.classes, probabilities)
    write_left_out(folder, {ROW: reason} if reason else {})
    click.echo(f"slow_fusion {split}: {f'no row: {reason}' if reason else f'predictions in {folder}'}")


if __name__ == "__main__":
    main()
