"""Stage ``baselines``: simple methods that any result must be read beside, on the test clips of one split.

``linear``: logistic regression on cubes averaged over the regions, frames side by side, of each stream and of both;
``linear_mean``: averaged over the frames too; ``frame_size``: on width, height and ratio of the frames alone. Writes
``data/<dataset>/predictions/<baseline>-<split>``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import Baseline, Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable


@click.command(help=__doc__)
@params_option
@click.option("--baseline", required=True, type=click.Choice(Baseline.__args__))
@click.option("--split", required=True, type=int, help="The split whose test clips are classified.")
def main(params_path: Path, baseline: str, split: int) -> None:
    """Fit a simple method to the training clips of one split and classify the test clips."""
    params = load_params(params_path)

    with told_plainly(f"baselines {baseline}-{split}"), counted(params, f"baselines@{baseline}-{split}"):
        run(params, baseline, split)


def run(params: Params, baseline: str, split: int) -> None:
    """Run the stage."""
    from han_core.clips import read_clips
    from han_core.predictions import probabilities_file, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    made = _frame_size if baseline == "frame_size" else _linear
    found = list(made(params, table, split, baseline))
    folder = paths.predictions(baseline, split)
    clear(folder)
    for name, clips, probabilities in found:
        write_predictions(probabilities_file(folder, name), [clip.key for clip in clips], table.classes, probabilities)
    click.echo(f"baselines {baseline}-{split}: {len(found)} rows; predictions in {folder}")


def _linear(
    params: Params, table: "ClipTable", split: int, baseline: str
) -> "Iterator[tuple[str, list[Clip], np.ndarray]]":
    """Logistic regression on averaged cubes: each stream, and both."""
    from han_core.baselines.linear import clip_vectors, logistic_regression
    from han_core.cubes.cubefile import CUBES
    from pipeline.features import open_store

    reading = {"streams": ("spatial", "temporal"), "array": CUBES, "pooled": True}
    stores = [open_store(params, split, table.select(split, role), **reading) for role in ("train", "test")]
    train, test = (store.load() for store in stores)
    for name, streams in {
        f"{baseline}_spatial": ["spatial"],
        f"{baseline}_temporal": ["temporal"],
        baseline: ["spatial", "temporal"],
    }.items():
        over_time = baseline == "linear_mean"
        vectors = [
            clip_vectors({s: part.arrays[s].numpy() for s in streams}, over_time=over_time) for part in (train, test)
        ]
        probabilities = logistic_regression(vectors[0], train.labels.numpy(), vectors[1], len(table.classes))
        yield name, stores[1].clips, probabilities


def _frame_size(
    params: Params, table: "ClipTable", split: int, baseline: str
) -> "Iterator[tuple[str, list[Clip], np.ndarray]]":
    """Logistic regression on width, height and ratio alone: what a cropped clip tells before anyone looks."""
    from han_core.baselines.linear import frame_size_features, logistic_regression
    from han_core.clipfile.reader import ClipFile
    from pipeline.paths import Paths, clip_file

    folder = Paths.of(params).frames

    def sizes(clips: "Iterable[Clip]") -> "tuple[list[Clip], np.ndarray]":
        have = [clip for clip in clips if clip_file(folder, clip.class_name, clip.name).is_file()]
        rows = []
        for clip in have:
            with ClipFile(clip_file(folder, clip.class_name, clip.name)) as file:
                rows.append((file.attributes["width"], file.attributes["height"]))
        return have, frame_size_features(np.array(rows))

    learnt, train = sizes(table.select(split, "train"))
    tested, test = sizes(table.select(split, "test"))
    labels = np.array([clip.label for clip in learnt])
    yield baseline, tested, logistic_regression(train, labels, test, len(table.classes))


if __name__ == "__main__":
    main()
