"""Pictures of what a model looked at."""

import cv2
import numpy as np


def attention_strip(frames: np.ndarray, maps: np.ndarray, *, side: int = 128) -> np.ndarray:
    """A row of frames over the same row with the attention maps laid over them, the strongest region circled.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        maps: (T, R) attention, R a square number (14 x 14 = 196).
        side: height of one picture in pixels; the width follows the frames.

    Returns:
        (2 * side, T * width, 3) uint8 RGB.

    Raises:
        ValueError: the numbers of frames and maps differ, or R is not a square.
    """
    grid = round(maps.shape[1] ** 0.5)
    if grid * grid != maps.shape[1] or len(frames) != len(maps):
        raise ValueError(f"{len(frames)} frames and maps of shape {maps.shape} do not fit together")
    width = max(1, round(side * frames.shape[2] / frames.shape[1]))
    above, below = [], []
    for frame, weights in zip(frames, maps, strict=True):
        small = cv2.resize(frame, (width, side), interpolation=cv2.INTER_AREA)
        above.append(small)
        below.append(_overlaid(small, weights.reshape(grid, grid)))
    return np.concatenate([np.concatenate(above, axis=1), np.concatenate(below, axis=1)], axis=0)


def _overlaid(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One map over one picture: the more weight, the brighter and warmer."""
    height, width = picture.shape[:2]
    heat = cv2.resize(weights.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    # A map that hardly differs from the uniform one must look flat, so the scale starts at zero and spans at
    # least four times the uniform weight.
    heat = heat / max(float(weights.max()), 4 / weights.size)
    colour = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    mixed = cv2.addWeighted(picture, 0.5, colour, 0.5, 0)
    row, column = np.unravel_index(int(weights.argmax()), weights.shape)
    centre = (int((column + 0.5) * width / weights.shape[1]), int((row + 0.5) * height / weights.shape[0]))
    cv2.circle(mixed, centre, max(3, height // 10), (0, 255, 0), 1, cv2.LINE_AA)
    return mixed
