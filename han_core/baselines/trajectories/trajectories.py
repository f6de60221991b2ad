"""The trajectories of one clip: where they go, and how they look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CHANNELS = ("trajectory", "hog", "hof", "mbhx", "mbhy")
"""What a trajectory is described by, in the order of the paper."""

DIMENSIONS: Mapping[str, int] = {"trajectory": 30, "hog": 96, "hof": 108, "mbhx": 96, "mbhy": 96}
"""Numbers of each channel; those of ``trajectory`` are twice the length, which is 15 steps unless set otherwise."""

HISTOGRAMS = CHANNELS[1:]
"""The channels that are histograms, stored as bytes."""

RESOLUTION = 64
"""Points and displacements are whole multiples of 1/64 pixel, in memory as on disk."""


@dataclass(frozen=True)
class Counts:
    """What became of the tracks of a clip that lived for the whole length."""

    finished: int = 0
    kept: int = 0
    """Those that passed all tests, before the limit ``most`` is applied."""
    static: int = 0
    """Dropped: they hardly move."""
    erratic: int = 0
    """Dropped: they jump, or stray too far."""
    camera: int = 0
    """Dropped: they move as the camera does."""


@dataclass(frozen=True)
class Trajectories:
    """n trajectories of L steps, in the order in which they start; of those that start together, by scale, then row by
    row over the grid.

    A histogram's entries are ordered by cell in time (3), in x (2), in y (2), bin (8; of ``hof`` 9, the last for pixels
    that do not move). Bin b collects directions around 45 b degrees, from x towards y.

    What was not read from a file is None.

    Raises:
        ValueError: the arrays do not fit together.
    """

    start: np.ndarray
    """(n,) int32: frame of the first point, from 0."""
    scale: np.ndarray
    """(n,) uint8: level of the pyramid, from 0."""
    points: np.ndarray | None = None
    """(n, L + 1, 2) float32: x and y in pixels of the flow's size, from 0 to width and height. A point at (x, y) of a
    coarser scale stands at that times the ratio of the sizes."""
    warped: np.ndarray | None = None
    """(n, L, 2) float32: each step's displacement without the camera's motion, in pixels of the flow's size."""
    hog: np.ndarray | None = None
    """(n, 96) uint8: 255 times the value, as the other histograms."""
    hof: np.ndarray | None = None
    """(n, 108) uint8."""
    mbhx: np.ndarray | None = None
    """(n, 96) uint8."""
    mbhy: np.ndarray | None = None
    """(n, 96) uint8."""

    def __post_init__(self) -> None:
        n = len(self.start)
        shapes = {"start": (n,), "scale": (n,), **{name: (n, DIMENSIONS[name]) for name in HISTOGRAMS}}
        if self.points is not None:
            shapes["points"] = (n, *self.points.shape[1:2], 2)
        if self.warped is not None:
            shapes["warped"] = (n, *self.warped.shape[1:2], 2)
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name}: its shape is {values.shape}, not {shape}")
        if self.points is not None and self.warped is not None and self.points.shape[1] != self.warped.shape[1] + 1:
            raise ValueError("points: there is not one more of them than displacements")

    @classmethod
    def empty(cls, length: int) -> "Trajectories":
        """None at all, of a length in steps."""
        return cls(
            points=np.empty((0, length + 1, 2), np.float32),
            start=np.empty(0, np.int32),
            scale=np.empty(0, np.uint8),
            warped=np.empty((0, length, 2), np.float32),
            **{name: np.empty((0, DIMENSIONS[name]), np.uint8) for name in HISTOGRAMS},
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Trajectories"]) -> "Trajectories":
        """One after the other; at least one part, all with the same arrays."""
        names = [name for name, values in vars(parts[0]).items() if values is not None]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def __len__(self) -> int:
        return len(self.start)

    def select(self, index: np.ndarray | slice) -> "Trajectories":
        """Those of an index array, a mask or a slice, in its order."""
        return Trajectories(**{name: values[index] for name, values in vars(self).items() if values is not None})

    def channel(self, name: str) -> np.ndarray:
        """(n, D) float32 descriptors of one channel.

        Args:
            name: ``trajectory``: the warped displacements x, y, x, y, .. divided by the sum of their lengths; a
                histogram: its values from 0 to 1.

        Raises:
            ValueError: there is no such channel, or it was not read.
        """
        if name not in CHANNELS:
            raise ValueError(f"channel: {name!r} is not one of {', '.join(CHANNELS)}")
        stored = self.warped if name == "trajectory" else getattr(self, name)
        if stored is None:
            raise ValueError(f"channel: {name} was not read")
        if name in HISTOGRAMS:
            return stored * np.float32(1 / 255)
        total = np.sqrt(np.square(stored).sum(2)).sum(1)[:, None]
        flat = stored.reshape(len(self), 2 * stored.shape[1])
        return np.divide(flat, total, out=np.zeros_like(flat), where=total > 0)


def rounded(pixels: np.ndarray) -> np.ndarray:
    """Pixels as float32 whole multiples of 1 / :data:`RESOLUTION`."""
    return np.rint(pixels * np.float32(RESOLUTION)) * np.float32(1 / RESOLUTION)
