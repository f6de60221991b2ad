"""Descriptors of a split's training clips, drawn from their trajectory files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.clips import Clip


def training_files(params: Params, split: int) -> "dict[str, tuple[Clip, Path]]":
    """Clip's key -> training clip of a split and its trajectory file; without those that failed before."""
    from han_core.clips import read_clips
    from pipeline.execution.ledger import read_failures
    from pipeline.paths import Paths, clip_file

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    failed = read_failures(paths.trajectories)
    return {
        clip.key: (clip, clip_file(paths.trajectories, clip.class_name, clip.name))
        for clip in table.select(split, "train")
        if clip.key not in failed
    }


def contents(files: Mapping[str, Path]) -> dict[str, str]:
    """Clip's key -> content of its file.

    Raises:
        ClipFileError: a file is missing or damaged.
    """
    from pipeline.execution.contents import contents_of

    return contents_of(files)


def draw_samples(files: Mapping[str, Path], channels: Sequence[str], count: int, seed: int) -> dict[str, np.ndarray]:
    """Descriptors drawn from all clips, each clip's part in proportion to its trajectories.

    Args:
        files: clip's key -> trajectory file.
        count: how many, if there are so many.

    Returns:
        Channel -> (n, D) float32; empty where no clip has a trajectory.

    Raises:
        ClipFileError: a file is missing or damaged.
    """
    from han_core.baselines.fisher.sampling import collect
    from han_core.baselines.trajectories.trajectoryfile import count_trajectories, read_trajectories
    from han_core.runs.progress import Progress

    counts = {key: count_trajectories(path) for key, path in files.items()}
    with Progress("sample", sum(map(bool, counts.values()))) as progress:

        def read(key: str, rows: np.ndarray) -> dict[str, np.ndarray]:
            found = read_trajectories(files[key], channels, points=False, rows=rows)
            progress.advance()
            return {channel: found.channel(channel) for channel in channels}

        return collect(counts, count, read, seed=seed)
