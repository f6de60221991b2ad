"""Rows that are linear SVMs on sums of kernels of Fisher vectors: from the clips' vectors to a family's predictions."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.clips import Clip

Channel = tuple[Path, str]
"""Folder of clip files of kind fisher, and the name of a vector in them."""


def make_rows(
    params: Params,
    family: str,
    split: int,
    rows: Mapping[str, Sequence[Channel]],
    left_out: Mapping[str, str] | None = None,
) -> None:
    """Fit the SVMs of a family's rows to the training clips of a split, and write what they say of the test clips.

    A clip that failed in one of the folders is in none of the rows, so that all rows are of the same clips.

    Args:
        rows: row -> the channels whose kernels are added.
        left_out: row that cannot be made -> reason.

    Raises:
        ClipFileError: a clip's vectors are missing or damaged, or all clips of a role failed.
        VectorError: vectors of a channel are of different lengths.
    """
    from han_core.baselines.fisher.kernel_svm import margins, probabilities
    from han_core.clipfile.trailer import ClipFileError
    from han_core.clips import read_clips
    from han_core.devices import cores
    from han_core.predictions import probabilities_file, write_left_out, write_predictions
    from pipeline.execution.ledger import read_failures
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths

    paths, left_out = Paths.of(params), left_out or {}
    table = read_clips(paths.clips)
    table.require(split)
    folders = list(dict.fromkeys(folder for channels in rows.values() for folder, _ in channels))
    failed = {key for folder in folders for key in read_failures(folder)}
    learnt, tested = (
        [clip for clip in table.select(split, role) if clip.key not in failed] for role in ("train", "test")
    )
    if not learnt or not tested:
        raise ClipFileError(f"{', '.join(map(str, folders))}: all clips of a role failed; failures.csv says why")
    labels = np.array([clip.label for clip in learnt])
    output = paths.predictions(family, split)
    clear(output)
    output.mkdir(parents=True)
    for row, kernel in summed_kernels(rows, learnt, tested).items():
        train, test = np.split(kernel, [len(learnt)])
        found = margins(train, labels, test, c=params.svm.c, classes=len(table.classes), threads=cores())
        write_predictions(
            probabilities_file(output, row), [clip.key for clip in tested], table.classes, probabilities(found)
        )
        right = int((found.argmax(1) == [clip.label for clip in tested]).sum())
        click.echo(f"{row}-{split}: {right} of {len(tested)} clips classified correctly")
    write_left_out(output, left_out)
    for row, reason in left_out.items():
        click.echo(f"{family}-{split}: no row {row}: {reason}")


def summed_kernels(
    rows: Mapping[str, Sequence[Channel]], learnt: "Sequence[Clip]", tested: "Sequence[Clip]"
) -> dict[str, np.ndarray]:
    """Row -> the sum of its channels' kernels, (training and test clips, training clips) float32.

    Each channel's kernel is computed once, whatever the number of rows that it is part of, and added at once: in memory
    is one kernel for each row, and one more.

    Raises:
        ClipFileError: a clip's vectors are missing or damaged.
        VectorError: vectors of a channel are of different lengths.
    """
    from han_core.baselines.fisher.fisherfile import read_half
    from han_core.baselines.fisher.kernel_svm import linear_kernel
    from han_core.devices import cores
    from han_core.runs.progress import Progress
    from pipeline.paths import clip_file

    needed = list(dict.fromkeys(channel for channels in rows.values() for channel in channels))
    sums: dict[str, np.ndarray] = {}
    with Progress("kernels", len(needed), unit="channel") as progress:
        for folder, name in needed:
            files = [[clip_file(folder, clip.class_name, clip.name) for clip in clips] for clips in (learnt, tested)]
            loaders = [[partial(read_half, path, name) for path in paths] for paths in files]
            kernel = linear_kernel(*loaders, threads=cores())
            for row in (row for row, channels in rows.items() if (folder, name) in channels):
                if row in sums:
                    sums[row] += kernel
                else:
                    sums[row] = kernel.copy()
            progress.advance(note=name)
    return {row: sums[row] for row in rows}
