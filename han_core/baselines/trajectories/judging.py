"""Which finished tracks are trajectories: the tests of Wang & Schmid 2013, in pixels of the frame."""

import numpy as np

from han_core.devices import compiled

KEPT, STATIC, ERRATIC, CAMERA = 0, 1, 2, 3

_LEAST_SPREAD, _MOST_SPREAD = 3**0.5, 50.0
"""Of the points along x or y (standard deviation, pixels)."""
_LONGEST_STEP, _LONGEST_SHARE = 20.0, 0.7
"""A step is a jump if it is longer than both: pixels, and share of the path."""
_CAMERA_STEP = 1.0
"""Longest warped displacement (pixels) of a track that moves as the camera does."""


@compiled
def judge(points: np.ndarray, warped: np.ndarray, camera: bool) -> np.ndarray:
    """What each track is: one of KEPT, STATIC, ERRATIC, CAMERA, the first that applies of the last three.

    Args:
        points: (n, L + 1, 2) float32 pixels of the frame.
        warped: (n, L, 2) float32: displacements without the camera's motion.
        camera: whether to test for CAMERA.

    Returns:
        (n,) uint8.
    """
    verdict = np.empty(len(points), np.uint8)
    for i in range(len(points)):
        spread_x, spread_y = _spread(points[i, :, 0]), _spread(points[i, :, 1])
        path, longest, moved = 0.0, 0.0, 0.0
        for t in range(warped.shape[1]):
            x = float(points[i, t + 1, 0]) - float(points[i, t, 0])
            y = float(points[i, t + 1, 1]) - float(points[i, t, 1])
            length = np.sqrt(x * x + y * y)
            path += length
            longest = max(longest, length)
            moved = max(moved, np.sqrt(float(warped[i, t, 0]) ** 2 + float(warped[i, t, 1]) ** 2))
        if spread_x < _LEAST_SPREAD and spread_y < _LEAST_SPREAD:
            verdict[i] = STATIC
        elif max(spread_x, spread_y) > _MOST_SPREAD or (longest > _LONGEST_STEP and longest > _LONGEST_SHARE * path):
            verdict[i] = ERRATIC
        elif camera and moved <= _CAMERA_STEP:
            verdict[i] = CAMERA
        else:
            verdict[i] = KEPT
    return verdict


@compiled
def _spread(values: np.ndarray) -> float:
    """Standard deviation."""
    mean = 0.0
    for value in values:
        mean += value
    mean /= len(values)
    total = 0.0
    for value in values:
        total += (value - mean) ** 2
    return np.sqrt(total / len(values))
