"""The frames file of a clip: a video decoded into it one frame at a time, and frames read back."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from han_core.clipfile import ClipFile, ClipFileWriter
from han_core.images import encode_image
from han_core.video import probe, read_video


def write_frames(
    video: str | Path, path: str | Path, *, clip: str, fingerprint: str, short_side: int | None, quality: int
) -> int:
    """Decode a video into a frames file; one frame is in memory at a time.

    The file's attributes: ``width``, ``height`` (pixels), ``fps`` (0 if the video does not say), ``count`` (frames
    that decoded), ``packets`` (encoded pictures in the video: a difference to ``count`` is worth a look), ``quality``.

    Args:
        video: the video file.
        path: the clip file to write.
        clip, fingerprint: who it is.
        short_side: shrink to this; None keeps the size.
        quality: of JPEG, 1 to 100.

    Returns:
        The number of frames.

    Raises:
        VideoError: the video cannot be decoded.
    """
    info = probe(video)
    with ClipFileWriter(path, kind="frames", clip=clip, fingerprint=fingerprint) as writer:
        frames = writer.images("frames")
        height = width = 0
        for frame in read_video(video, short_side=short_side):
            height, width = frame.shape[:2]
            frames.append(encode_image(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), "jpeg", quality))
        count = len(frames)
        writer.attributes |= {"width": width, "height": height, "fps": info.fps, "count": count}
        writer.attributes |= {"packets": info.packets, "quality": quality}
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
