"""Turning and mirroring frames as a video's display matrix says."""

import struct

import numpy as np

BYTES = 36
"""Of a display matrix: nine 32-bit integers."""


def orientation(matrix: bytes | None) -> tuple[bool, bool, bool] | None:
    """What a display matrix does, in this order: exchange x and y, then flip left-right, then flip top-bottom.

    Args:
        matrix: nine little-endian integers (a, b, u, c, d, v, x, y, w) as FFmpeg keeps them, of which a, b, c, d, in
            16.16 fixed point, take (x, y) to (a x + c y, b x + d y); None is the identity.

    Returns:
        The three steps; None for a matrix that is not a turn by right angles or a mirror image.
    """
    if matrix is None or len(matrix) < BYTES:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("<9i", matrix[:BYTES])
    near = [abs(value) > max(1, abs(other)) for value, other in ((a, b), (d, c))]
    far = [abs(value) > max(1, abs(other)) for value, other in ((b, a), (c, d))]
    if all(near):
        steps, off = (False, a < 0, d < 0), max(abs(b), abs(c))
    elif all(far):
        steps, off = (True, c < 0, b < 0), max(abs(a), abs(d))
    else:
        return None
    return steps if off * 100 < max(abs(a), abs(b), abs(c), abs(d)) else None


def oriented(frame: np.ndarray, steps: tuple[bool, bool, bool]) -> np.ndarray:
    """A frame (H, W, C) as it is to be shown; see :func:`orientation`."""
    exchange, mirror, upside = steps
    if exchange:
        frame = frame.swapaxes(0, 1)
    if mirror:
        frame = frame[:, ::-1]
    if upside:
        frame = frame[::-1]
    return np.ascontiguousarray(frame)
