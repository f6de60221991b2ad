"""When the frames of a video are shown: rate and evenness from their time stamps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_UNEVEN = 0.75
"""Frames farther from their place in an even video than this share of a frame's duration make it uneven."""
ROUNDING = 0.0015
"""Seconds: time stamps in whole milliseconds (Matroska, WebM) are off by so much at most, and count as even."""


@dataclass(frozen=True)
class Rate:
    """Frames per second of a whole video."""

    fps: float
    """Mean over the video; 0 if nothing says."""
    even: bool
    """Whether every frame is shown equally long, so that a frame's number gives its time."""


def rate_of(times: Sequence[float], nominal: float = 0.0) -> Rate:
    """The rate of frames shown at ``times``, in seconds and ascending; ``nominal`` where they do not say."""
    stamps = np.asarray(times, float)
    if len(stamps) < 2 or not np.isfinite(stamps).all() or not stamps[-1] > stamps[0]:
        return Rate(nominal, True)
    step = float(stamps[-1] - stamps[0]) / (len(stamps) - 1)
    off = np.abs(stamps - stamps[0] - step * np.arange(len(stamps))).max()
    even = bool(off <= max(_UNEVEN * step, ROUNDING) and (np.diff(stamps) > 0).all())
    # Mean and nominal rate differ by rounding of the stamps only where they mean the same.
    agree = nominal > 0 and abs(nominal * step - 1) < max(0.002, 2 * ROUNDING / (stamps[-1] - stamps[0]))
    return Rate(nominal if even and agree else 1 / step, even)
