"""The camera's motion between two frames, as a mean or a homography fitted to the flow, and flow without it.

Flow lies in memory as elsewhere in the project: (2, H, W) float32 pixels, x first.
"""

from typing import Literal

import cv2
import numpy as np

from han_core.devices import compiled

GRID = 8
"""Pixels between the points of the grid, the first ones half of that from the edge."""

_REACH = 1.0  # pixels by which an inlier may miss
_MATCHES, _INLIERS = 50, 25  # there must be more of each (Wang & Schmid 2013)
_CORNERS, _QUALITY, _DISTANCE = 1000, 0.001, 3  # of goodFeaturesToTrack, as in the original
_DEPTH = 0.2  # least denominator of a projection within the frame: no camera turns further from frame to frame
_LEAST = 0.05  # and where flow leads out of the frame


def homography(
    flow: np.ndarray, camera: Literal["grid", "corners", "none"] = "grid", grey: np.ndarray | None = None
) -> np.ndarray:
    """Fit the camera's motion from a frame to the next one by RANSAC (Wang & Schmid 2013, section 3.1).

    The same arguments give the same result, call after call.

    Args:
        flow: (2, H, W) float32 pixels.
        camera: to what it is fitted: the flow on a ``grid`` of every 8 pixels, the flow at up to 1000 ``corners`` of
            the first frame; ``none``: the identity.
        grey: (H, W) uint8 first frame, which ``corners`` needs.

    Returns:
        (3, 3) float64, its last entry 1: maps positions (x, y, 1) of the first frame to the second. The identity where
        there are not more than 50 points, not more than 25 inliers, or what comes out is no motion of a camera.

    Raises:
        ValueError: ``camera`` is not one of these, or corners are wanted and no frame is given.
    """
    if camera == "none":
        return np.eye(3)
    height, width = flow.shape[1:]
    if camera == "grid":
        y, x = np.mgrid[GRID // 2 : height : GRID, GRID // 2 : width : GRID].reshape(2, -1)
    elif camera == "corners":
        if grey is None:
            raise ValueError("camera: corners needs the frame")
        found = cv2.goodFeaturesToTrack(grey, _CORNERS, _QUALITY, _DISTANCE)
        x, y = (np.empty((2, 0)) if found is None else found[:, 0].T).astype(np.intp)  # whole numbers already
    else:
        raise ValueError(f"camera: {camera!r} is not one of grid, corners, none")
    if len(x) <= _MATCHES:
        return np.eye(3)
    here = np.stack([x, y], 1).astype(np.float32)
    found, inliers = cv2.findHomography(here, here + flow[:, y, x].T, cv2.RANSAC, _REACH)
    if found is None or int(inliers.sum()) <= _INLIERS or not _is_motion(found, width, height):
        return np.eye(3)
    return found / found[2, 2]


def mean_shift(flow: np.ndarray) -> np.ndarray:
    """The camera's motion as the mean of the flow, which the two-stream ConvNets [16] subtract.

    Args:
        flow: (2, H, W) float32 pixels.

    Returns:
        (3, 3) float64: the translation.
    """
    motion = np.eye(3)
    motion[:2, 2] = flow.mean(axis=(1, 2), dtype=np.float64)
    return motion


def warp_flow(flow: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Flow to the second frame as it would look had the camera stood still: H^-1 (x + f(x)) - x.

    Exact, and so needs no second solution of the flow: a second frame warped by H shows at H^-1 z what it shows at z.

    Args:
        flow: (2, H, W) float32 pixels.
        motion: (3, 3) H, from the first frame to the second. Of the identity flow comes back bit for bit.

    Returns:
        (2, H, W) float32 pixels.

    Raises:
        ValueError: the homography cannot be inverted.
    """
    warped = np.empty_like(flow)
    if np.array_equal(motion, np.eye(3)):
        warped[:] = flow
        return warped
    try:
        back = np.linalg.inv(motion)
    except np.linalg.LinAlgError:
        raise ValueError("the homography cannot be inverted") from None
    _warp(flow, back / back[2, 2] - np.eye(3), warped)
    return warped


@compiled
def _warp(flow: np.ndarray, g: np.ndarray, warped: np.ndarray) -> None:
    """With G = 1 + g the motion back and z = x + f: w = (g0 z - x (g2 z) + f) / (1 + g2 z). No large numbers are
    subtracted from each other, so float32 serves for frames of any size. What flows out of the camera's sight is
    held at its edge, so that all stays finite."""
    a, b, c = np.float32(g[0, 0]), np.float32(g[0, 1]), np.float32(g[0, 2])
    d, e, f = np.float32(g[1, 0]), np.float32(g[1, 1]), np.float32(g[1, 2])
    p, q = np.float32(g[2, 0]), np.float32(g[2, 1])
    one, least = np.float32(1), np.float32(_LEAST)
    for y in range(flow.shape[1]):
        u_row, v_row, out_u, out_v = flow[0, y], flow[1, y], warped[0, y], warped[1, y]
        row = np.float32(y)
        for x in range(flow.shape[2]):
            column = np.float32(x)
            u, v = u_row[x], v_row[x]
            to_x, to_y = column + u, row + v
            depth = p * to_x + q * to_y
            scale = one / max(one + depth, least)
            out_u[x] = (a * to_x + b * to_y + c - column * depth + u) * scale
            out_v[x] = (d * to_x + e * to_y + f - row * depth + v) * scale


def _is_motion(found: np.ndarray, width: int, height: int) -> bool:
    """Whether a homography, and the way back, keep all of the frame in front of the camera and not mirrored."""
    if not np.isfinite(found).all() or abs(found[2, 2]) < 1e-12:
        return False
    forth = found / found[2, 2]
    if not np.linalg.det(forth) > 1e-6:
        return False
    back = np.linalg.inv(forth)
    if abs(back[2, 2]) < 1e-12:
        return False
    back = back / back[2, 2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    return bool(min((corners @ forth[2]).min(), (corners @ back[2]).min()) > _DEPTH)
