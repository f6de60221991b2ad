"""Which frames of a clip, and which flow fields around them, a net looks at."""

from collections.abc import Sequence

import numpy as np


def sample_frames(count: int, frames: int, *, thirds: int = 0) -> np.ndarray:
    """Indices (frames,) int32 of equally spaced frames of a clip, first and last frame included.

    A clip of fewer frames repeats some of them, so every clip gives exactly as many as asked for. One frame asked
    for is the middle one.

    Args:
        count: frames of the clip.
        frames: T.
        thirds: 0 to 2; all frames are taken so many thirds of their distance later, at most the last one.

    Raises:
        ValueError: the clip has no frames, or none are asked for.

    Example:
        >>> sample_frames(100, 5).tolist()
        [0, 25, 50, 74, 99]
        >>> sample_frames(100, 5, thirds=1).tolist()
        [8, 33, 58, 83, 99]
        >>> sample_frames(2, 5).tolist()
        [0, 0, 1, 1, 1]
    """
    if count < 1 or frames < 1:
        raise ValueError(f"cannot take {frames} frames out of {count}")
    if frames == 1:
        return np.array([(count - 1) // 2], np.int32)
    # Rounded half up in integers, so that no floating point decides which frame is taken.
    steps = (3 * np.arange(frames, dtype=np.int64) + thirds) * (count - 1)
    whole = 3 * (frames - 1)
    return np.minimum((2 * steps + whole) // (2 * whole), count - 1).astype(np.int32)


def stack_fields(centres: np.ndarray | Sequence[int], stack: int, count: int) -> np.ndarray:
    """Indices (n, stack) int64 of the flow fields around frames ``centres``, clamped at the clip's ends.

    Flow i goes from frame i to frame i + 1, so for frame t the fields t - L/2 .. t + L/2 - 1 lie evenly around it
    (an odd L has the extra field after it). ``count`` is the number of flow fields of the clip.
    """
    if count < 1 or stack < 1:
        raise ValueError(f"cannot make stacks of {stack} out of {count} flow fields")
    offsets = np.arange(stack, dtype=np.int64) - stack // 2
    return np.clip(np.asarray(centres, np.int64)[:, None] + offsets, 0, count - 1)
