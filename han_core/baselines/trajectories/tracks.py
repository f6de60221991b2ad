"""The tracks that are alive at one scale."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from han_core.baselines.trajectories import kernels
from han_core.baselines.trajectories.params import SPACE, TIME, TrajectoryParams
from han_core.baselines.trajectories.pyramid import Level


@dataclass(frozen=True)
class Finished:
    """Tracks that have done all their steps, in pixels of the frame; not yet tested."""

    points: np.ndarray
    """(n, L + 1, 2) float32."""
    warped: np.ndarray
    """(n, L, 2) float32."""
    slots: np.ndarray
    """(n,) int32, for :meth:`Tracks.described`."""
    numbers: np.ndarray
    """(n,) float64: those that the tracks were started with."""


class Tracks:
    """Tracks of one scale: each has a slot in arrays that grow, and the slots in use are a list by age.

    Memory: 1.8 KiB a track that is alive.
    """

    def __init__(self, level: Level, params: TrajectoryParams) -> None:
        self.level, self.params = level, params
        # Even, and within the frame; 0 in a frame that has no room for two cells, in which no track starts.
        self._patch = tuple(min(params.patch, side) // SPACE * SPACE for side in (level.height, level.width))
        self._slots = np.empty(0, np.int32)
        self._free = np.empty(0, np.int32)
        self._points = np.empty((0, params.length + 1, 2), np.float32)
        self._moves = np.empty((0, params.length, 2), np.float32)
        self._described = np.empty((0, TIME, kernels.VALUES), np.float32)
        self._ages = np.empty(0, np.int32)
        self._numbers = np.empty(0, np.float64)
        self._scratch = np.empty(0, np.float32)

    def __len__(self) -> int:
        return len(self._slots)

    def current(self) -> np.ndarray:
        """(n, 2) float32: where the tracks are, in pixels of this scale."""
        return self._points[self._slots, self._ages[self._slots]]

    def start(self, texture: np.ndarray, numbers: Callable[[int], np.ndarray]) -> None:
        """Start tracks at the free points of the grid where there is texture (H, W) float32, each with a number:
        ``numbers(n)`` gives those of n tracks, (n,) float64."""
        if not all(self._patch):
            return
        threshold = self.params.quality * float(texture.max())
        found = kernels.grid_points(texture, threshold, self.params.stride, self._points, self._slots, self._ages)
        if len(found) > len(self._free):
            self._grow(len(found) - len(self._free))
        slots, self._free = self._free[: len(found)], self._free[len(found) :]
        self._points[slots, 0] = found
        self._described[slots] = 0
        self._ages[slots] = 0
        self._numbers[slots] = numbers(len(slots))
        self._slots = np.concatenate([self._slots, slots])

    def describe(self, grey: np.ndarray, warped: np.ndarray, limit: float) -> None:
        """Add what tracks look like in this frame (H, W), with its warped flow (2, H, W): those with a number below the
        limit."""
        if not self._scratch.size:
            self._scratch = np.empty(kernels.scratch_size(self._patch[0] // 2, self.level.width), np.float32)
        slots = self._slots if limit >= 1 else self._slots[self._numbers[self._slots] < limit]
        tracks = self._points, slots, self._ages, self._described
        kernels.describe(grey, warped, self._patch, *tracks, self._scratch)

    def step(self, flow: np.ndarray, warped: np.ndarray) -> Finished:
        """Move the tracks by the flow (2, H, W) of this scale; those that leave the frame end, and those that have done
        all their steps come back."""
        tracks = self._points, self._moves, self._slots, self._ages
        self._slots, finished, lost = kernels.step(flow, warped, *tracks)
        self._free = np.concatenate([self._free, lost, finished])
        return self._finished(finished)

    def none(self) -> Finished:
        """What comes back where no track is alive."""
        return self._finished(self._slots[:0])

    def _finished(self, slots: np.ndarray) -> Finished:
        ratio = self.level.ratio
        return Finished(self._points[slots] * ratio, self._moves[slots] * ratio, slots, self._numbers[slots])

    def described(self, finished: np.ndarray) -> np.ndarray:
        """(n, 3, 132) float32 of tracks that have just finished, before any other starts: for each cell in time the
        mean over its frames of what :func:`kernels.describe` adds up."""
        return self._described[finished] * np.float32(TIME / self.params.length)

    def _grow(self, more: int) -> None:
        """Room for so many more tracks at least."""
        size = len(self._ages)
        added = max(more, size // 2, 64)
        for name in ("_points", "_moves", "_described", "_numbers", "_ages"):
            old = getattr(self, name)
            new = np.empty((size + added, *old.shape[1:]), old.dtype)
            new[:size] = old
            setattr(self, name, new)
        self._free = np.concatenate([self._free, np.arange(size, size + added, dtype=np.int32)])
