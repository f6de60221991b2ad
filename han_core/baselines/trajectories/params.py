"""The settings of trajectories, and what is fixed beside them."""

from dataclasses import dataclass
from typing import Literal, get_args

Camera = Literal["grid", "corners", "none"]

SPACE, TIME = 2, 3
"""Cells of a descriptor: along x and along y, and along time."""

LARGEST = 16_384
"""Pixels of a frame's side at most."""

MOST_SCALES = 16


@dataclass(frozen=True)
class TrajectoryParams:
    """How trajectories are sampled, tracked and described. The defaults are those of Wang & Schmid 2013.

    Raises:
        ValueError: a value is not valid; the message names the field.
    """

    length: int = 15
    """Steps of a trajectory, which has one more point; a multiple of the three cells in time."""
    stride: int = 5
    """Pixels between grid points, at every scale alike."""
    patch: int = 32
    """Side in pixels, at the trajectory's scale, of the square in which it is described; even. A scale exists where
    the frame's shorter side has at least so many."""
    scales: int = 8
    """Levels of the pyramid at most, each 1/sqrt 2 of the one above."""
    quality: float = 0.001
    """A grid point starts a trajectory where the smaller eigenvalue of the structure tensor is above this share of its
    maximum over the frame at that scale."""
    camera: Camera = "grid"
    """What the homography of the camera's motion is fitted to: the flow on a ``grid``, the flow at ``corners`` (as in
    the original, but for SURF). ``none``: no motion is taken out and no trajectory is taken for the camera's: dense
    trajectories (Wang et al. 2011)."""
    median: int = 5
    """Side of the median filter over flow, in pixels: 1 (none), 3 or 5."""
    most: int = 5000
    """Trajectories of a clip that are stored at most, a random part of all; 0: all."""

    def __post_init__(self) -> None:
        _whole("length", self.length, TIME, 240)
        if self.length % TIME:
            raise ValueError(f"length: {self.length} is not a multiple of {TIME}, the cells of a descriptor in time")
        _whole("stride", self.stride, 1, 1024)
        _whole("patch", self.patch, 2 * SPACE, 1024)
        if self.patch % SPACE:
            raise ValueError(f"patch: {self.patch} is not even: its halves are the cells of a descriptor")
        _whole("scales", self.scales, 1, MOST_SCALES)
        if not 0 < self.quality < 1:
            raise ValueError(f"quality: {self.quality} is not between 0 and 1")
        if self.camera not in get_args(Camera):
            raise ValueError(f"camera: {self.camera!r} is not one of {', '.join(get_args(Camera))}")
        if self.median not in (1, 3, 5):
            raise ValueError(f"median: {self.median} is not one of 1, 3, 5")
        _whole("most", self.most, 0, 1 << 31)


def _whole(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}: {value!r} is not a whole number from {least} to {most}")
