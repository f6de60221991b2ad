"""Opening a local video file with FFmpeg, and nothing but that, and choosing its video track."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from han_core.video.errors import VideoError

VIDEO_EXTENSIONS = frozenset(
    {
        ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v",
        ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".qt",
        ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
    }
)  # fmt: skip
"""Endings, in lower case, of the files that count as videos."""

FORMATS = (
    "3gp,asf,av1,avi,dv,flv,gif,h261,h263,h264,hevc,ivf,jpeg_pipe,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "rm,vc1,webm,webp_anim"
)
"""Demuxers that may open a file: containers of one local file. Playlists (hls, dash, concat, sdp, ..) name others."""

_UNKNOWN = 2**32 - 1
"""Size in an AVI that was written to a pipe, or whose recorder was ended: nobody went back to fill it in."""

OWN_OUTPUTS = (".predict.mp4", ".predict.webm", ".flow.avi", ".flow.mp4")
"""Endings of the files that the command ``han`` writes: never taken for videos of a dataset."""


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video: by its ending, not hidden, and not written by ``han``."""
    lower = name.lower()
    return not name.startswith(".") and Path(lower).suffix in VIDEO_EXTENSIONS and not lower.endswith(OWN_OUTPUTS)


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video track.

    Raises:
        VideoError: the file is missing, empty, cut off, not a regular file, or not a video that FFmpeg can open.
        OSError: too many files are open, or there is no memory left.
    """
    _check_file(path)
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        with av.logging.Capture(local=True):  # what FFmpeg thinks of the file is said in our words
            # The prefix, because FFmpeg takes the beginning of "a:b.avi" for a protocol.
            container = av.open(f"file:{path.absolute()}", container_options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        _raise_if_machine(error, path)
        raise VideoError("the file is not a video that can be decoded") from None
    try:
        stream = choose_track(list(container.streams.video))
        stream.thread_count = 1  # one worker per core; and what the decoder reports belongs to the packet just given
        yield container, stream
    finally:
        container.close()


def choose_track(streams: list[VideoStream]) -> VideoStream:
    """The track that is decoded: the default one, else the first; never a cover picture or a lone thumbnail.

    Raises:
        VideoError: there is none.
    """
    moving = [s for s in streams if s.codec_context is not None and not s.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError("the file has no video track that can be decoded")
    several = [s for s in moving if s.frames != 1] or moving
    return min(several, key=lambda s: (not s.disposition & Disposition.default, s.index))


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise VideoError("the video file is missing") from None
    except OSError as error:
        _raise_if_machine(error, path)
        raise VideoError(f"the video file cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or pipe"
        raise VideoError(f"the video file cannot be read: it is a {kind}, not a file")
    if not status.st_size:
        raise VideoError("the video file is empty")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        _raise_if_machine(error, path)
        raise VideoError(f"the video file cannot be read ({error.strerror})") from None
    # An AVI that was cut off has lost its index, and FFmpeg plays what is left without a word; its first bytes say
    # how long it was. Other containers are compared with their index when they have been read.
    told = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI " and told != _UNKNOWN:
        missing = told + 8 - status.st_size
        if missing > 1:  # one byte of padding may be left out
            raise VideoError(f"the video file is cut off: {missing} of {status.st_size + missing} bytes are missing")


def _raise_if_machine(error: Exception, path: Path) -> None:
    """Pass on what is no fault of the file: the process may open no more files, or the machine has no memory left."""
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise OSError(number, os.strerror(number), str(path)) from None


def is_link_out(path: Path, root: Path) -> bool:
    """Whether a file, its links followed, lies outside a folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
