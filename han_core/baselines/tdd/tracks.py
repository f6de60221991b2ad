"""Where maps are pooled: the points of a clip's trajectories, one a frame."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from han_core.baselines.trajectories.trajectoryfile import read_facts, read_trajectories
from han_core.errors import HanError


class TracksError(HanError, ValueError):
    """Trajectories that are not those of the clip at hand."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Trajectories as far as pooling needs them. The arrays are not changed."""

    points: np.ndarray
    """(n, L, 2) float32: one point for each of L frames, x first, in pixels whose centres are whole numbers."""
    start: np.ndarray
    """(n,) int64: frame of the first point."""
    width: int
    """Pixels of the image in which the points lie."""
    height: int

    @classmethod
    def of(cls, points: np.ndarray, start: np.ndarray, scale: np.ndarray, *, width: int, height: int) -> "Tracks":
        """The trajectories of the original scale, without the point that the last step leads to.

        The original pools along the 15 frames in which its 15 steps begin, and takes no trajectory of another scale.

        Args:
            points: (n, L + 1, 2) float32, x first. start: (n,) frame of the first. scale: (n,) 0 is the original.
            width, height: of the flow, whose pixels the points are in.
        """
        kept = scale == 0
        return cls(np.ascontiguousarray(points[kept, :-1], np.float32), start[kept].astype(np.int64), width, height)

    def __len__(self) -> int:
        return len(self.start)

    @property
    def length(self) -> int:
        """L, frames of a track."""
        return self.points.shape[1]

    def take(self, indices: np.ndarray) -> "Tracks":
        """Some of the tracks, in the order of ``indices``."""
        return Tracks(self.points[indices], self.start[indices], self.width, self.height)

    def check(self, frames: int) -> None:
        """Compare with the length of the clip.

        Raises:
            TracksError: a track begins before the first frame, or ends after the last.
        """
        if not len(self):
            return
        first, last = int(self.start.min()), int(self.start.max()) + self.length - 1
        if first < 0 or last >= frames:
            raise TracksError(
                f"trajectories run through frames {first} to {last}, but the clip has frames 0 to {frames - 1}; they "
                "are of another clip or of another version of it: run stage trajectories again"
            )

    def crossing(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Tracks that have a point in a frame, each once: (m,) their numbers, and (m,) which of their points it is."""
        first, end = np.searchsorted(self._starts, [frame - self.length + 1, frame + 1])
        which = self._by_start[first:end]
        return which, frame - self.start[which]

    def cells(self, rows: int, columns: int) -> np.ndarray:
        """The cell of each point on a map of the whole image: (n, L) int64, row times ``columns`` plus column.

        Maps of VGG-16 have same-padded convolutions and 2x2 pooling, so cell j of stride s lies over pixels s j to
        s j + s - 1 of the net's input, its centre at s j + (s - 1) / 2; a point belongs to the cell whose centre is
        nearest. Of whole pixels in an input of the image's own size that is floor(x / s). Points that lie beyond the
        image belong to its outermost cells.
        """
        x, y = self.points[..., 0].astype(np.float64), self.points[..., 1].astype(np.float64)
        column = np.floor((x + 0.5) * columns / self.width).clip(0, columns - 1)
        row = np.floor((y + 0.5) * rows / self.height).clip(0, rows - 1)
        return row.astype(np.int64) * columns + column.astype(np.int64)

    @cached_property
    def _by_start(self) -> np.ndarray:
        return np.argsort(self.start, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        return self.start[self._by_start]


def read_tracks(path: str | Path) -> Tracks:
    """The tracks of a clip, out of its trajectory file.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no trajectories.
    """
    found, facts = read_trajectories(path, channels=()), read_facts(path)
    return Tracks.of(found.points, found.start, found.scale, width=facts.width, height=facts.height)


def count_tracks(path: str | Path) -> int:
    """How many tracks :func:`read_tracks` reads; raises what it raises."""
    return int((read_trajectories(path, channels=(), points=False).scale == 0).sum())
