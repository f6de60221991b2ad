"""What a folder of cube files holds, and how much smaller than raw numbers it is. No cube is read for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from han_core.clipfile.trailer import read_trailer
from han_core.cubes.cubefile import cube_shape, nonzeros, stored_bytes


@dataclass(frozen=True)
class StoreStatistics:
    """Figures of one stream's cubes."""

    clips: int
    shape: tuple[int, ...]
    """Of one clip's cube: frames, channels, rows, columns."""
    zeros: float
    """Share of the cubes' numbers that are zero."""
    raw_bytes: int
    """The cubes as dense float16."""
    stored_bytes: int
    """The cubes as they are stored."""
    file_bytes: int
    """The whole files: cubes, fully connected features, names and checksums."""


def store_statistics(paths: Sequence[Path]) -> StoreStatistics:
    """Measure the cube files ``paths``.

    Raises:
        ValueError: there are none.
        ClipFileError: one is damaged, or holds no cube.
    """
    if not paths:
        raise ValueError("no cube files to measure")
    trailers = [read_trailer(path) for path in paths]
    shapes = [cube_shape(path, trailer) for path, trailer in zip(paths, trailers, strict=True)]
    numbers = sum(int(np.prod(shape)) for shape in shapes)
    return StoreStatistics(
        clips=len(paths),
        shape=shapes[0],
        zeros=1 - sum(map(nonzeros, trailers)) / numbers,
        raw_bytes=2 * numbers,
        stored_bytes=sum(map(stored_bytes, trailers)),
        file_bytes=sum(path.stat().st_size for path in paths),
    )
