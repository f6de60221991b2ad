"""What a folder of cube files holds, and how much smaller than raw numbers it is. No cube is read for it."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from han_core.clipfile.trailer import TRAILER_BYTES, Trailer
from han_core.cubes.cubefile import cube_shape, nonzeros, stored_bytes
from han_core.errors import HanError


class NothingToMeasure(HanError, ValueError):
    """No clip has cubes."""


@dataclass(frozen=True)
class StoreStatistics:
    """Figures of one stream's cubes."""

    clips: int
    shape: tuple[int, ...]
    """Of one clip's cube: frames, channels, rows, columns; the smallest where clips differ."""
    zeros: float
    """Share of the cubes' numbers that are zero."""
    raw_bytes: int
    """The cubes as dense float16."""
    stored_bytes: int
    """The cubes as they are stored."""
    file_bytes: int
    """The whole files: cubes, fully connected features, names and checksums."""


def write_statistics(statistics: StoreStatistics, path: Path) -> None:
    """Write figures as JSON: who wants them later need not look at thousands of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(statistics), indent=1) + "\n", encoding="utf-8")


def read_statistics(path: Path) -> StoreStatistics:
    """What :func:`write_statistics` wrote.

    Raises:
        HanError: it is something else.
        OSError: it cannot be read.
    """
    try:
        found = StoreStatistics(**json.loads(path.read_text(encoding="utf-8")))
        return replace(found, shape=tuple(found.shape))
    except (TypeError, ValueError):
        raise HanError(f"{path}: does not hold the figures of a store; run the cubes stage again") from None


def store_statistics(trailers: Iterable[Trailer]) -> StoreStatistics:
    """Measure cube files by their trailers.

    Raises:
        NothingToMeasure: there are none.
        ClipFileError: one is damaged, or holds no cube.
    """
    counted = StoreCount()
    for trailer in trailers:
        counted.add(trailer)
    return counted.statistics()


class StoreCount:
    """Counts the files of a store one by one, in any order."""

    def __init__(self) -> None:
        self._shapes: set[tuple[int, ...]] = set()
        self._clips = self._numbers = self._nonzeros = self._stored = self._files = 0

    def add(self, trailer: Trailer) -> None:
        """Count a file by its trailer.

        Raises:
            ClipFileError: it holds no cube.
        """
        shape = cube_shape(trailer.clip, trailer)
        self._shapes.add(shape)
        self._clips += 1
        self._numbers += math.prod(shape)
        self._nonzeros += nonzeros(trailer)
        self._stored += stored_bytes(trailer)
        self._files += trailer.size + TRAILER_BYTES

    def statistics(self) -> StoreStatistics:
        """Of the files so far.

        Raises:
            NothingToMeasure: there are none.
        """
        if not self._clips:
            raise NothingToMeasure("no cube files to measure: no clip has cubes")
        return StoreStatistics(
            clips=self._clips,
            shape=min(self._shapes),
            zeros=1 - self._nonzeros / self._numbers,
            raw_bytes=2 * self._numbers,
            stored_bytes=self._stored,
            file_bytes=self._files,
        )
