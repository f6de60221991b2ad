"""Frames and flow at the scales at which trajectories are tracked."""

import cv2
import numpy as np

from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.camera.motion import warp_flow


def pyramid_sizes(height: int, width: int, params: TrajectoryParams) -> list[tuple[int, int]]:
    """(height, width) of each level, each 1/sqrt 2 of the one above: ``params.scales`` at most, and only while the
    shorter side is not below ``params.patch``. The frame itself always is one."""
    sizes = [(height, width)]
    while len(sizes) < params.scales:
        factor = 2 ** (-len(sizes) / 2)
        size = round(height * factor), round(width * factor)
        if min(size) < params.patch:
            break
        sizes.append(size)
    return sizes


class Level:
    """One scale of the pyramid.

    Attributes:
        height, width: pixels.
        ratio: (2,) float32, by which a position or a displacement (x, y) at this scale is multiplied to be one in the
            frame. Sizes are whole numbers, so it is not quite a power of sqrt 2, and not the same along x and y.
    """

    def __init__(self, size: tuple[int, int], frame: tuple[int, int]) -> None:
        self.height, self.width = size
        self.full = size == frame
        self.ratio = np.array([frame[1] / size[1], frame[0] / size[0]], np.float32)
        # Where the centres of pixels lie in the frame, as OpenCV's resize has it.
        rx, ry = frame[1] / size[1], frame[0] / size[0]
        self._to_frame = np.array([[rx, 0, (rx - 1) / 2], [0, ry, (ry - 1) / 2], [0, 0, 1]])

    def grey(self, above: np.ndarray) -> np.ndarray:
        """The frame (H, W) uint8 at this scale, bilinear from the level above."""
        return above if self.full else cv2.resize(above, (self.width, self.height), interpolation=cv2.INTER_LINEAR)

    def flow(self, flow: np.ndarray, interleaved: np.ndarray) -> np.ndarray:
        """The frame's flow at this scale, (2, h, w) float32 in its pixels: the mean over the area of each pixel.

        Args:
            flow, interleaved: the frame's, (2, H, W) and (H, W, 2) float32. OpenCV resizes two channels at once in
                little more time than one.
        """
        if self.full:
            return flow
        small = np.empty((2, self.height, self.width), np.float32)
        cv2.split(cv2.resize(interleaved, (self.width, self.height), interpolation=cv2.INTER_AREA), list(small))
        small *= (np.float32(1) / self.ratio)[:, None, None]
        return small

    def warp(self, flow: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """Flow of this scale without the camera's motion (3, 3), which is given in pixels of the frame.

        To warp what is resized instead of resizing what is warped is the same for a motion that is affine, and half
        the work.
        """
        return warp_flow(flow, np.linalg.inv(self._to_frame) @ motion @ self._to_frame)


def filtered(flow: np.ndarray, side: int) -> np.ndarray:
    """Flow (2, H, W) after a median filter of ``side`` pixels over each component; 1 leaves it as it is.

    Not optional on stored flow, which comes in steps: derivatives would see nothing else.
    """
    return flow if side == 1 else np.stack([cv2.medianBlur(component, side) for component in flow])
