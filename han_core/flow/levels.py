"""Flow as grey levels: how it is quantised, and how it is stored."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVELS = 255
"""Largest level; level 0 stands for -bound, 255 for +bound, and 127.5 would be zero."""


@dataclass(frozen=True)
class FlowFormat:
    """How flow is stored."""

    bound: float
    """Pixels at the ends of the scale; larger motion is clipped."""
    rounding: Literal["nearest", "floor"] = "nearest"
    codec: Literal["jpeg", "png"] = "jpeg"
    quality: int = 95
    """Of JPEG."""
    size: tuple[int, int] | None = None
    """Width and height at which flow is computed and stored; None is the frames' own."""


@dataclass(frozen=True)
class QuantizedFlow:
    """Flow of N pairs that was quantised where it was computed."""

    levels: np.ndarray
    """(N, 2, H, W) uint8, x first; see :func:`quantize`."""
    beyond: np.ndarray
    """(N,) int64: pixels whose flow lies beyond the bound in x or y."""
    finite: np.ndarray
    """(N,) bool: whether all of a pair's flow was finite; if not, its levels mean nothing."""


def quantize(flow: np.ndarray, bound: float, rounding: Literal["nearest", "floor"] = "nearest") -> np.ndarray:
    """Map flow linearly from [-bound, bound] pixels to levels 0..255.

    One level is 2 bound / 255 pixels. Zero lies at 127.5, between two levels: ``nearest`` rounds halves to the even
    level, so zero becomes 128 and reads back as bound / 255 (0.078 pixels at bound 20); ``floor`` makes it 127.
    Within the bound, dequantised flow is off by at most half a level with ``nearest`` (a whole one with ``floor``).

    Args:
        flow: float array of any shape, pixels.
        bound: above 0.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: the bound or the rounding is not valid, or flow is not finite.

    Example:
        >>> quantize(np.array([-20.0, 0.0, 1.0, 35.0]), bound=20)
        array([  0, 128, 134, 255], dtype=uint8)
    """
    if not bound > 0:
        raise ValueError(f"bound must be above 0, not {bound}")
    flow = np.asarray(flow, dtype=np.float32)
    if not np.isfinite(flow).all():
        raise ValueError("flow must be finite")
    levels = flow * np.float32(LEVELS / (2 * bound))
    levels += np.float32(LEVELS / 2)
    np.clip(levels, 0, LEVELS, out=levels)
    if rounding == "nearest":
        np.rint(levels, out=levels)
    elif rounding != "floor":
        raise ValueError(f"rounding must be nearest or floor, not {rounding!r}")
    return levels.astype(np.uint8)


def dequantize(levels: np.ndarray, bound: float) -> np.ndarray:
    """Levels 0..255 back to float32 pixels, whichever rounding made them."""
    pixels = np.asarray(levels, dtype=np.float32) * np.float32(2 * bound / LEVELS)
    pixels -= np.float32(bound)
    return pixels
