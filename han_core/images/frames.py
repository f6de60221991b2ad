"""The frames file of a clip: JPEGs written one frame at a time, and frames read back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.writer import ClipFileWriter
from han_core.images.codec import encode_image


def write_frames(
    images: Iterable[np.ndarray],
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    quality: int,
    attributes: Callable[[], Mapping[str, int | float]] = dict,
) -> int:
    """Encode frames into a frames file; one frame is in memory at a time.

    The file's attributes: ``width``, ``height`` (pixels), ``count`` (frames), ``quality``, and those given.

    Args:
        images: (H, W, 3) uint8 RGB each, all of one size; what they raise passes through.
        path: the clip file to write.
        clip, fingerprint: who it is.
        quality: of JPEG, 1 to 100.
        attributes: of the video, to be stored in the file; asked for once all frames are written.

    Returns:
        The number of frames.
    """
    with ClipFileWriter(path, kind="frames", clip=clip, fingerprint=fingerprint) as writer:
        frames = writer.images("frames")
        height = width = 0
        for frame in images:
            height, width = frame.shape[:2]
            frames.append(encode_image(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), "jpeg", quality))
        count = len(frames)
        writer.attributes |= {"width": width, "height": height, "count": count, "quality": quality, **attributes()}
    return count


def read_frames(path: str | Path, indices: Iterable[int] | None = None) -> np.ndarray:
    """Frames of a clip.

    Args:
        path: a frames file.
        indices: which, from 0, in the order wanted; None is all.

    Returns:
        (n, H, W, 3) uint8 RGB.

    Raises:
        ClipFileError: the file is not a frames file, or damaged.
        IndexError: there is no such frame.
    """
    with ClipFile(path) as file:
        wanted: Sequence[int] = range(file.image_count("frames")) if indices is None else [int(i) for i in indices]
        if not wanted:
            return np.empty((0, file.attributes["height"], file.attributes["width"], 3), np.uint8)
        return np.stack([file.image("frames", i) for i in wanted])
