"""Class scores of clips, read by the stages that make predictions of them."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from han_core.clips import Clip


def read_clip_scores(clips: "Sequence[Clip]", folders: Sequence[Path]) -> "tuple[list[Clip], list[np.ndarray]]":
    """The clips that have scores in all folders, and the scores (clips, classes) in each.

    Raises:
        ClipFileError: a clip that did not fail has none, or another clip's, or all failed.
    """
    from han_core.baselines.two_stream.scorefile import read_scores
    from han_core.clipfile.trailer import ClipFileError
    from pipeline.execution.contents import contents_of
    from pipeline.execution.ledger import read_failures
    from pipeline.paths import clip_file

    failed = set().union(*(read_failures(folder) for folder in folders))
    have = [clip for clip in clips if clip.key not in failed]
    if not have:
        raise ClipFileError(f"{folders[0]}: all clips failed; failures.csv says why")
    files = [{clip.key: clip_file(folder, clip.class_name, clip.name) for clip in have} for folder in folders]
    for own in files:
        contents_of(own)  # each is its clip's
    found = [[read_scores(path) for path in own.values()] for own in files]
    if len({scores.shape for scores in itertools.chain(*found)}) > 1:
        raise ClipFileError(f"{folders[0]}: scores of clips are of several numbers of classes; run stage scores again")
    return have, [np.stack(scores) for scores in found]
