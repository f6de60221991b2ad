"""The scores of one clip as a file, and what stands in a folder of scores that could not be had."""

from pathlib import Path

import numpy as np

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, ClipFileError
from han_core.clipfile.writer import ClipFileWriter

NOT_SCORED = "not_scored.txt"
"""In place of the clips: why the net was not scored."""


def write_scores(
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    frames: np.ndarray,
    probabilities: np.ndarray,
    attributes: dict[str, str | int],
    torch_threads: int | None = None,
) -> None:
    """Write a clip file of kind scores: ``probabilities`` float32 (frames, classes) and ``frames`` int32 (frames,)."""
    identity = {"kind": "scores", "clip": clip, "fingerprint": fingerprint}
    with ClipFileWriter(path, **identity, attributes=attributes, torch_threads=torch_threads) as file:
        file.array("frames", frames)
        file.array("probabilities", probabilities)


def read_scores(path: str | Path) -> np.ndarray:
    """Class probabilities (classes,) float32 of a clip, mean over its frames.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no scores.
    """
    with ClipFile(path) as file:
        scores = file.array("probabilities")
    if scores.dtype != np.float32 or scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ClipFileError(f"{path}: its probabilities are not those of classes. {REMAKE}")
    return scores.mean(0)
