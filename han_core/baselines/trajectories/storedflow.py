"""Flow as trajectories use it, out of the levels of a flow file."""

from typing import Literal

import numpy as np

from han_core.flow.levels import LEVELS, dequantize, quantize


def pixels_of_levels(bound: float, rounding: Literal["nearest", "floor"]) -> np.ndarray:
    """The flow that each of the 256 levels stands for, such that what did not move does not move.

    A level stands for the middle of the flow that is stored as it. With ``floor`` that is half a level above what
    :func:`dequantize` gives, which knows of no rounding, and flow of 0 comes out as 0. With ``nearest`` the middle of
    the level to which 0 rounds is half a level off 0 (0.078 pixels at bound 20): it is set to exactly 0, or
    every point of a still picture would drift by a pixel in 15 frames.

    Args:
        bound: pixels of the ends of the scale, as the flow file says.
        rounding: with which it was written, as it says.

    Returns:
        (256,) float32 pixels, rising.
    """
    zero = int(quantize(np.zeros(1), bound, rounding)[0])
    if rounding == "floor":
        return ((np.arange(LEVELS + 1) - zero) * (2 * bound / LEVELS)).astype(np.float32)
    pixels = dequantize(np.arange(LEVELS + 1), bound)
    pixels[zero] = 0
    return pixels


def field_of_levels(levels: np.ndarray, bound: float, rounding: Literal["nearest", "floor"]) -> np.ndarray:
    """Stored levels (.., H, W) uint8 as flow, float32 pixels of the same shape; see :func:`pixels_of_levels`."""
    return pixels_of_levels(bound, rounding)[levels]
