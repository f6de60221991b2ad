"""Stage ``two_stream``: the fine-tuned nets by themselves, and both joined: Table 2's two-stream CNN [16].

Reads ``data/<dataset>/scores/<stream>-<split>``, writes ``data/<dataset>/predictions/two_stream-<split>`` with the rows
``spatial_net`` and ``temporal_net``, ``two_stream`` (weighted mean of both) and ``two_stream_svm`` (an SVM fitted to
their scores of the training clips). Joined rows lack the clips that one of the streams lacks. Rows that cannot be had,
because a net was not scored, are named in ``left_out.csv`` with the reason.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.clip_scores import read_clip_scores
from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.not_scored import why_not_scored
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.clips import Clip

STREAMS = ("spatial", "temporal")


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=int, help="The split whose test clips are classified.")
def main(params_path: Path, split: int) -> None:
    """Join the scores of the two nets on one split."""
    params = load_params(params_path)

    with told_plainly(f"two_stream {split}"), counted(params, f"two-stream@{split}"):
        run(params, split)


def run(params: Params, split: int) -> None:
    """Run the stage."""
    from han_core.baselines.two_stream.fusion import average_scores, svm_scores
    from han_core.clips import read_clips
    from han_core.predictions import probabilities_file, write_left_out, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    folders = {stream: paths.scores(stream, split) for stream in STREAMS}
    left_out = {f"{stream}_net": reason for stream in STREAMS if (reason := why_not_scored(folders[stream]))}
    if left_out:
        left_out |= dict.fromkeys(("two_stream", "two_stream_svm"), next(iter(left_out.values())))
    found: dict[str, tuple[list[Clip], np.ndarray]] = {}
    for stream in STREAMS:
        if f"{stream}_net" not in left_out:
            clips, (scores,) = read_clip_scores(table.select(split, "test"), [folders[stream]])
            found[f"{stream}_net"] = clips, scores
    if not left_out:
        clips, test = read_clip_scores(table.select(split, "test"), list(folders.values()))
        found["two_stream"] = clips, average_scores(test, params.evaluate.fusion)
        learnt, train = read_clip_scores(table.select(split, "train"), list(folders.values()))
        labels = np.array([clip.label for clip in learnt])
        found["two_stream_svm"] = clips, svm_scores(train, labels, test, len(table.classes), seed=params.seed)
    folder = paths.predictions("two_stream", split)
    clear(folder)
    folder.mkdir(parents=True)
    for name, (clips, probabilities) in found.items():
        write_predictions(probabilities_file(folder, name), [clip.key for clip in clips], table.classes, probabilities)
    write_left_out(folder, left_out)
    for name, reason in left_out.items():
        click.echo(f"two_stream {split}: no row {name}: {reason}")
    click.echo(f"two_stream {split}: {len(found)} rows; predictions in {folder}")


if __name__ == "__main__":
    main()
