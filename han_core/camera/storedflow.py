"""The fields of a flow file as float pixels, in which what did not move is exactly zero."""

import math
from typing import Literal

import cv2
import numpy as np

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, ClipFileError
from han_core.flow.levels import LEVELS, FlowFormat, dequantize, quantize


class StoredFlow:
    """The flow of a clip, a field at a time.

    Attributes:
        width, height: of the fields in pixels.
        form: how they are stored.
        count: of the fields.

    Args:
        file: an open flow file.

    Raises:
        ClipFileError: it does not say how its flow is stored.
    """

    def __init__(self, file: ClipFile) -> None:
        self._file = file
        said = file.attributes
        width, height, bound, rounding = (said.get(name) for name in ("width", "height", "bound", "rounding"))
        codec, quality = said.get("codec"), said.get("quality")
        fine = all(isinstance(side, int) and 0 < side < 1 << 20 for side in (width, height))
        fine = fine and isinstance(bound, float) and math.isfinite(bound) and 0 < bound < 1e6
        fine = fine and codec in ("jpeg", "png") and isinstance(quality, int) and 0 <= quality <= 100
        if not fine or rounding not in ("nearest", "floor"):
            raise ClipFileError(f"{file.path}: does not say how its flow is stored. {REMAKE}")
        self.width, self.height = width, height
        self.form = FlowFormat(bound, rounding, codec, quality)
        self.count = file.image_count("x")
        if (other := file.image_count("y")) != self.count:
            raise ClipFileError(f"{file.path}: has {self.count} images of flow along x, {other} along y. {REMAKE}")
        self._pixels = pixels_of_levels(bound, rounding)

    def field(self, number: int) -> np.ndarray:
        """(2, H, W) float32 pixels, x first.

        Raises:
            ClipFileError: the file is damaged.
        """
        field = np.empty((2, self.height, self.width), np.float32)
        for component, name in zip(field, ("x", "y"), strict=True):
            levels = self._file.image(name, number)
            if levels.shape != component.shape:
                wanted = f"{self.width}x{self.height}"
                raise ClipFileError(f"{self._file.path}: flow {number} is not of {wanted} pixels. {REMAKE}")
            cv2.LUT(levels, self._pixels, component)
        return field


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
