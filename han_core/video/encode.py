"""Frames into a video that browsers play: H.264 in MP4, its index in front, so that it starts before it is all there.

The same frames give the same bytes on every run of one machine: one encoder thread, no date in the file.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from han_core.errors import HanError

ENCODERS = ("libx264", "libopenh264", "libvpx-vp9")
"""FFmpeg's names of the encoders, best first; a build of PyAV need not have all. VP9, too, plays in browsers from MP4,
in old versions of Safari it does not."""
USUAL_FPS = 25.0
"""Frames per second where a video does not say."""
LONGEST_NAME = 255
"""Bytes of a file's name that usual file systems take."""
_T = TypeVar("_T")
_BITS_A_PIXEL = 0.25
"""Of libopenh264, which knows no constant quality."""
_OPTIONS = {
    "libx264": lambda quality: {"crf": str(quality), "preset": "medium"},
    "libopenh264": lambda quality: {"allow_skip_frames": "0"},
    "libvpx-vp9": lambda quality: {"crf": str(quality + 10), "b": "0", "cpu-used": "4", "row-mt": "0"},
}


class EncodeError(HanError):
    """A video cannot be written; the message says which and what to do."""


class VideoWriter:
    """Writes RGB frames to an ``.mp4``, one at a time; a context manager.

    The file appears under its name when it is whole: after an error inside the ``with`` block there is none, and one
    that was there before stays.

    Args:
        path: the file; its folder is made.
        fps: frames per second; 0, as of a video that does not say, means 25.
        quality: constant rate factor, 0 (best) to 51; 18 cannot be told from its source at a glance.

    Raises:
        EncodeError: the file cannot be written, or this build of PyAV has no encoder whose videos browsers play.

    Example:
        >>> with VideoWriter(Path("grey.mp4"), fps=25) as video:
        ...     for level in range(0, 250, 10):
        ...         video.write(np.full((48, 64, 3), level, np.uint8))
    """

    def __init__(self, path: Path, fps: float, *, quality: int = 18) -> None:
        self.count = 0
        """Frames that were written."""
        self._path = path
        self._part = path.with_name(fitting_name(f".{path.name}", ".part"))
        self._rate = max(Fraction(fps or USUAL_FPS).limit_denominator(1001), Fraction(1, 1001))
        self._quality = quality
        self._encoder = encoder()
        self._size = (0, 0)
        self._stream: av.VideoStream | None = None
        self._colours = VideoReformatter()
        self._container = self._do(self._open)

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB. The last row and the last column of odd sizes are written twice.

        Raises:
            EncodeError: the file cannot be written.
            ValueError: the frame is of another shape than the first, or not an RGB picture.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
        if self._stream is None:
            self._size = frame.shape[:2]
            self._stream = self._do(lambda: self._add_stream(*even(frame).shape[:2]))
        if frame.shape[:2] != self._size:
            raise ValueError(f"a frame of {frame.shape[:2]} among frames of {self._size}, height and width")
        self._do(lambda: self._encode(even(frame)))
        self.count += 1

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            EncodeError: it cannot be written.
            ValueError: no frame was written.
        """
        try:
            if self._stream is None:
                raise ValueError("a video needs a frame")
            self._do(self._finish)
        finally:
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def _open(self) -> av.container.OutputContainer:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The prefix, because FFmpeg takes the beginning of "a:b.mp4" for a protocol.
        part = f"file:{self._part.absolute()}"
        return av.open(part, "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"})

    def _add_stream(self, height: int, width: int) -> av.VideoStream:
        options = _OPTIONS[self._encoder](self._quality)
        stream = self._container.add_stream(self._encoder, rate=self._rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1  # with several, the bytes depend on how many
        stream.codec_context.time_base = 1 / self._rate
        # Said, because players guess otherwise: BT.601 for small frames, BT.709 for large ones.
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        if self._encoder == "libopenh264":
            stream.bit_rate = max(100_000, round(_BITS_A_PIXEL * width * height * float(self._rate)))
        return stream

    def _encode(self, picture: np.ndarray) -> None:
        frame = self._colours.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.time_base = self.count, 1 / self._rate
        self._container.mux(self._stream.encode(frame))

    def _finish(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()
        self._part.replace(self._path)

    def _discard(self) -> None:
        """Close what is open and remove what is unfinished; an error of that is not worth telling."""
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        with suppress(OSError):
            self._part.unlink()

    def _do(self, step: Callable[[], _T]) -> _T:
        """Do a step, with FFmpeg's and the system's errors in our words."""
        try:
            with av.logging.Capture(local=True):
                return step()
        except (av.FFmpegError, OSError) as error:
            why = error.strerror or type(error).__name__
            raise EncodeError(f"{self._path}: cannot be written ({why}); {self._hint(error.errno)}") from None

    def _hint(self, number: int | None) -> str:
        """What to look at after an error: FFmpeg's own numbers, and an invalid argument, are not the disk's."""
        height, width = self._size
        if width and (number not in errno.errorcode or number == errno.EINVAL):
            return f"does the encoder {self._encoder} take frames of {width} x {height}?"
        return "is the folder writable, the disk full?"


def fitting_name(stem: str, ending: str) -> str:
    """``stem + ending`` as a file's name; where it is longer than :data:`LONGEST_NAME`, a name that fits: the beginning
    of the stem, a digest of the whole name and the ending. The same name is always shortened alike, another one
    differently.
    """
    whole = os.fsencode(stem + ending)
    if len(whole) <= LONGEST_NAME:
        return stem + ending
    digest = f"-{hashlib.sha256(whole).hexdigest()[:8]}"
    raw = os.fsencode(stem)
    room = LONGEST_NAME - len(os.fsencode(ending)) - len(digest)
    for _ in range(3):  # bytes of 10xxxxxx continue a character of UTF-8, of at most four bytes
        room -= raw[room] & 0xC0 == 0x80
    return os.fsdecode(raw[:room]) + digest + ending


def check_folder(folder: Path) -> None:
    """Find out whether files can be written into a folder, or into what would be made for it; nothing is left behind.

    Raises:
        EncodeError: they cannot.
    """
    place = folder.absolute()
    try:
        while not _is_there(place):
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise EncodeError(
            f"{folder}: no video can be written there ({error.strerror}); name a folder that is writable"
        ) from None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def encode_video(frames: Iterable[np.ndarray], fps: float, *, quality: int = 23) -> bytes:
    """A whole ``.mp4`` in memory, for a page that holds it. See :class:`VideoWriter` for arguments and errors.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; an array (N, H, W, 3) is fine.
    """
    # By way of a file: FFmpeg moves the index to the front by reading what it has written.
    with tempfile.TemporaryDirectory(prefix="han-video-") as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, fps, quality=quality) as writer:
            for frame in frames:
                writer.write(frame)
        return path.read_bytes()


def encoder() -> str:
    """FFmpeg's name of the encoder that is used: the first of :data:`ENCODERS` that there is.

    Raises:
        EncodeError: there is none.
    """
    for name in ENCODERS:
        if _encodes(name):
            return name
    raise EncodeError(
        f"this build of PyAV ({av.__version__}) has none of the encoders {', '.join(ENCODERS)}, so it writes no video "
        "that browsers play; install PyAV's own: pip install --force-reinstall --only-binary av av"
    )


def _encodes(name: str) -> bool:
    try:
        return av.codec.Codec(name, "w").is_encoder
    except ValueError:
        return False


def even(picture: np.ndarray) -> np.ndarray:
    """The picture with even sides, as 4:2:0 colours need: the last row, the last column twice.

    Args:
        picture: (H, W, 3).
    """
    height, width = picture.shape[:2]
    if height % 2 == width % 2 == 0:
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
