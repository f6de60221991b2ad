"""Frames out of a video file, with OpenCV's sequential decoder.

A header's frame count is a guess and many AVIs have no timestamps, so frames are decoded one after the other and
counted. Rotation flags are obeyed, as OpenCV does by default. Before the first frame is decoded, the file is read
once as packets (about 20 microseconds a packet), which finds what the decoder would hide: a file cut off in the
middle, and pictures that change size (OpenCV would deliver garbage of the old size).
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from han_core.errors import ClipError
from han_core.video.container import missing_bytes
from han_core.video.picture_size import size_reader

# FFmpeg inside OpenCV writes to standard error, past Python; it reads this once, when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class VideoError(ClipError):
    """A video cannot be decoded; the message says why, without the file's name."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video without decoding it."""

    width: int
    """Pixels, of the decoded (rotated) frame."""
    height: int
    fps: float
    """Frames a second; 0 if the file does not say."""
    packets: int
    """Encoded pictures in the file. Usually the number of frames, but a few may not decode to a frame of their own."""
    codec: str
    """Four characters."""


def probe(path: str | Path) -> VideoInfo:
    """Open a video and read its packets without decoding them.

    Raises:
        VideoError: the file is missing, empty, no video, cut off, or its pictures change size.
    """
    path = Path(path)
    _check_file(path)
    capture = _open(path, cv2.CAP_PROP_FORMAT, -1)
    try:
        codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1")
        width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps = capture.get(cv2.CAP_PROP_FPS)
        turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) in (90, 270)
        packets = _scan(capture, codec)
    finally:
        capture.release()
    if turned:
        width, height = height, width
    fps = float(fps) if math.isfinite(fps) and fps > 0 else 0.0
    return VideoInfo(width, height, fps, packets, codec.strip("\x00 "))


def read_video(path: str | Path, *, short_side: int | None = None) -> Iterator[np.ndarray]:
    """Decode a video frame by frame.

    Args:
        path: the file.
        short_side: frames whose shorter side is longer than this are shrunk to it (area averaging), keeping the ratio;
            None keeps the size.

    Yields:
        (H, W, 3) uint8 RGB, all of one size.

    Raises:
        VideoError: as :func:`probe`; and if no frame decodes, or fewer than half of the encoded pictures do.

    Example:
        >>> frames = list(read_video("clip.avi"))
        >>> len(frames), frames[0].shape, frames[0].dtype
        (14, (48, 64, 3), dtype('uint8'))
    """
    info = probe(path)
    capture = _open(Path(path), cv2.CAP_PROP_N_THREADS, 1)
    count = 0
    first: tuple[int, ...] | None = None
    try:
        while True:
            there, frame = capture.read()
            if not there:
                break
            first = first or frame.shape
            if frame.shape != first:
                raise VideoError(_changes((first[1], first[0]), (frame.shape[1], frame.shape[0]), count))
            count += 1
            yield cv2.cvtColor(shrink(frame, short_side), cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
    if not count:
        raise VideoError("no frame of the video can be decoded")
    if 2 * count < info.packets - 2:  # one frame from two packets is legal (fields, hidden pictures); less is damage
        raise VideoError(f"only {count} of the {info.packets} pictures in the video can be decoded; it is damaged")


def shrink(frame: np.ndarray, short_side: int | None) -> np.ndarray:
    """Shrink a frame so that its shorter side is at most ``short_side``; None, or a smaller frame, changes nothing.

    Args:
        frame: (H, W, C) or (H, W) uint8.
    """
    height, width = frame.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return frame
    scale = short_side / min(height, width)
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
        missing = missing_bytes(path)
    except FileNotFoundError:
        raise VideoError("the video file is missing") from None
    except OSError as error:
        raise VideoError(f"the video file cannot be read ({error.strerror})") from None
    if not size:
        raise VideoError("the video file is empty")
    if missing:
        raise VideoError(f"the video file is cut off: {missing} of {size + missing} bytes are missing")


def _open(path: Path, option: int, value: int) -> cv2.VideoCapture:
    # The absolute path, because FFmpeg takes "a:b.avi" for a protocol named a.
    capture = cv2.VideoCapture()
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        opened = capture.open(str(path.absolute()), cv2.CAP_FFMPEG, [option, value])
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not opened:
        raise VideoError("the file is not a video that can be decoded")
    return capture


def _scan(capture: cv2.VideoCapture, codec: str) -> int:
    """Count the packets; refuse a change of size."""
    read_size = size_reader(codec)
    first = None
    count = 0
    while True:
        there, packet = capture.read()
        if not there:
            return count
        if read_size is not None:
            try:
                size = read_size(packet.tobytes())
            except ValueError:  # a damaged header; the decoder will say whether it can do without
                size = None
            if size is not None and size != (first or size):
                raise VideoError(_changes(first, size, count))
            first = first or size
        count += 1


def _changes(before: tuple[int, int] | None, after: tuple[int, int], at: int) -> str:
    return "the video changes size from {}x{} to {}x{} at picture {}".format(*(before or ()), *after, at)


VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"}
)
"""Endings, in lower case, of the files that count as videos."""
