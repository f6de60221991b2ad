"""The first layer of stacked Fisher vectors: a vector for each of a clip's subvolumes.

A trajectory belongs to the subvolumes that hold its mean point and its middle frame. All subvolumes are made of whole
blocks, and statistics add up, so each trajectory is weighed once, for its block; what is held at a time are the blocks
of the longest subvolume, however long the clip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from han_core.baselines.fisher.mixture import Mixture
from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.vector import fisher_vector, improved, statistics_of
from han_core.errors import ClipError

_LAST_FRAME = 10_000_000  # four days of video


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the trajectories of a clip lie."""

    centres: np.ndarray
    """(n, 2) float32: mean points, x first, in parts of the frame's width and height."""
    middles: np.ndarray
    """(n,) int: middle frames."""

    @classmethod
    def of(cls, points: np.ndarray, start: np.ndarray, *, width: int, height: int) -> "Positions":
        """Positions of trajectories.

        Args:
            points: (n, L, 2), pixels, x first. start: (n,) the frame of the first point.
            width, height: of the frames whose pixels those are.
        """
        centres = points.mean(1, dtype=np.float64) / (width, height)
        return cls(centres.astype(np.float32), start.astype(np.int64) + (points.shape[1] - 1) // 2)

    def __len__(self) -> int:
        return len(self.middles)


@dataclass(frozen=True)
class Subvolume:
    """A part of a clip, in blocks; the last ones are not in it."""

    x: tuple[int, int]
    y: tuple[int, int]
    t: tuple[int, int]
    trajectories: int


def subvolumes(positions: Positions, params: StackedParams) -> list[Subvolume]:
    """The subvolumes of a clip with enough trajectories, in the order in which they end, and last the whole clip.

    A clip without a trajectory has none.

    Raises:
        ClipError: a trajectory lies in an impossible frame.
    """
    if not len(positions):
        return []
    x, y, t = _blocks(positions, params)
    if positions.middles.min() < 0 or positions.middles.max() > _LAST_FRAME:
        raise ClipError(f"a trajectory lies in frame {positions.middles.max()}, which no clip has")
    length = int(t.max()) + 1
    counts = np.zeros((length, params.cells, params.cells), np.int64)
    np.add.at(counts, (t, y, x), 1)
    found = []
    for end in range(1, length + 1):
        for frames in params.frames:
            blocks = frames // params.block_frames
            if end < blocks or (end - blocks) % (blocks // 2):
                continue
            for up in range(params.cells - params.span + 1):
                for left in range(params.cells - params.span + 1):
                    place = (slice(end - blocks, end), slice(up, up + params.span), slice(left, left + params.span))
                    if (count := int(counts[place].sum())) >= params.least:
                        edges = ((left, left + params.span), (up, up + params.span), (end - blocks, end))
                        found.append(Subvolume(*edges, count))
    everything = (0, params.cells)
    return [*found, Subvolume(everything, everything, (0, length), len(positions))]


def subvolume_vectors(
    points: np.ndarray, positions: Positions, wanted: Sequence[Subvolume], mixture: Mixture, params: StackedParams
) -> Iterator[np.ndarray]:
    """The improved Fisher vectors (2 K d,) float32 of subvolumes, one after the other.

    Args:
        points: (n, d) float32, the reduced descriptors of the clip's trajectories.
        wanted: some of those that :func:`subvolumes` gives, in its order.
    """
    x, y, t = _blocks(positions, params)
    order = np.lexsort((x, y, t))
    cells = (y * params.cells + x)[order]
    points, ends = points[order], np.searchsorted(t[order], np.arange(int(t.max(initial=-1)) + 2))
    # By block in time, the moments of each place in it; those that no subvolume can still need are dropped.
    windows: dict[int, np.ndarray] = {}
    whole: np.ndarray | int = 0
    longest = max(params.frames) // params.block_frames
    done = 0
    for subvolume in wanted:
        first, last = subvolume.t
        for number in range(done, last):
            own = slice(ends[number], ends[number + 1])
            made = mixture.grouped_moments(points[own], cells[own], params.cells**2)
            whole = whole + made.sum(0)
            windows[number] = _windows(made.reshape(params.cells, params.cells, *made.shape[1:]), params.span)
            windows.pop(number - longest, None)
        done = max(done, last)
        if _is_whole(subvolume, params):
            moments = whole
        else:
            moments = sum(windows[number][subvolume.y[0], subvolume.x[0]] for number in range(first, last))
        yield improved(fisher_vector(statistics_of(moments, mixture, subvolume.trajectories), mixture))


def _windows(blocks: np.ndarray, span: int) -> np.ndarray:
    """(places, places, ..): sums of span x span of the blocks (cells, cells, ..)."""
    places = range(len(blocks) - span + 1)
    return np.array([[blocks[up : up + span, left : left + span].sum((0, 1)) for left in places] for up in places])


def _is_whole(subvolume: Subvolume, params: StackedParams) -> bool:
    everything = (0, params.cells)
    return subvolume.x == subvolume.y == everything and subvolume.t[0] == 0


def _blocks(positions: Positions, params: StackedParams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) each: the block across, down and in time of each trajectory. Points beyond an edge belong to its block."""
    places = np.clip((positions.centres * params.cells).astype(np.int64), 0, params.cells - 1)
    return places[:, 0], places[:, 1], positions.middles // params.block_frames
