"""The rows of the fine-tuned nets themselves: each alone, and both joined (Table 2's two-stream CNN [16])."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import numpy as np

from han_core.baselines.two_stream.fusion import average_scores, svm_scores
from han_core.baselines.two_stream.scorefile import NOT_SCORED, read_scores
from han_core.clipfile.trailer import ClipFileError
from han_core.evaluation.results import Result, with_gaps
from pipeline.execution.ledger import read_failures
from pipeline.params import Params
from pipeline.paths import Paths, clip_file

if TYPE_CHECKING:
    from pathlib import Path

    from han_core.clips import Clip, ClipTable

STREAMS = ("spatial", "temporal")


def two_stream_results(params: Params, table: "ClipTable", split: int) -> Iterator[Result]:
    if not params.scores.enabled:
        return

    clips = table.select(split, "test")
    for name, scores, scored in two_stream_rows(params, table, split):
        yield Result(name, split, clips, with_gaps(scores, clips, scored))


def scored_streams(params: Params, split: int) -> list[str]:
    """Streams whose nets were scored; says why the others were not."""
    scored = []
    for stream in STREAMS:
        reason = Paths.of(params).scores(stream, split) / NOT_SCORED
        if reason.exists():
            click.echo(f"no row {stream}_net of split {split}: {reason.read_text(encoding='utf-8').strip()}")
        else:
            scored.append(stream)
    return scored


def two_stream_rows(params: Params, table: "ClipTable", split: int) -> "Iterator[tuple[str, np.ndarray, list[Clip]]]":
    """Name, probabilities (clips, classes) and test clips of each row that there is for a split.

    ``spatial_net`` and ``temporal_net``, and where both are, ``two_stream`` (weighted mean) and ``two_stream_svm``
    (fitted to the scores of the training clips). Joined rows leave out clips that one of the streams lacks.
    """
    paths = Paths.of(params)
    scored = scored_streams(params, split)
    for stream in scored:
        clips, (found,) = _read(table.select(split, "test"), [paths.scores(stream, split)])
        yield f"{stream}_net", found, clips
    if len(scored) < len(STREAMS):
        return
    folders = [paths.scores(stream, split) for stream in STREAMS]
    clips, test = _read(table.select(split, "test"), folders)
    yield "two_stream", average_scores(test, params.evaluate.fusion), clips
    learnt, train = _read(table.select(split, "train"), folders)
    labels = np.array([clip.label for clip in learnt])
    yield "two_stream_svm", svm_scores(train, labels, test, len(table.classes), seed=params.seed), clips


def _read(clips: "tuple[Clip, ...]", folders: "list[Path]") -> "tuple[list[Clip], list[np.ndarray]]":
    """The clips that have scores in all folders, and the scores (clips, classes) in each.

    Raises:
        ClipFileError: a clip that did not fail has none.
    """
    failed = set().union(*(read_failures(folder) for folder in folders))
    have = [clip for clip in clips if clip.name not in failed]
    if not have:
        raise ClipFileError(f"{folders[0]}: all clips failed; failures.csv says why")
    found = [np.stack([read_scores(clip_file(folder, c.class_name, c.name)) for c in have]) for folder in folders]
    return have, found
