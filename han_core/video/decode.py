"""Frames out of a video file with FFmpeg (PyAV): every decodable one, in order, also behind a bad packet.

What FFmpeg's tools show is what comes out: the frames that an edit list leaves visible, turned and mirrored as the
display matrix says, in the colours of the file's matrix and range. Damage is never silent: it is counted
(:class:`Damage`), and a video with more of it than allowed is refused.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from han_core.video.container import opened
from han_core.video.damage import Damage
from han_core.video.errors import VideoError
from han_core.video.missing import Traces
from han_core.video.orientation import orientation, oriented
from han_core.video.promised import promised
from han_core.video.times import Rate, rate_of

DAMAGED_SHARE = 0.05
"""Share of a video's pictures that may be damaged, unless another is asked for."""


_ONE_EACH = frozenset({"flv1", "h263", "mjpeg", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"})
"""Codecs of which every packet gives a frame, so that one that gives none, without a word, is damage."""
_PLACEHOLDER = 16
"""Bytes: a smaller packet of these codecs may say "as the frame before" and give none (packed B-frames in AVI)."""
_NO_ZEROS = frozenset({"av1", "flv1", "h263", "h264", "hevc", "mpeg4", "vp8", "vp9", "wmv1", "wmv2"})
"""Codecs that do not write long runs of zero bytes into a picture: most forbid them, as they would look like a start
code. A run is a hole, of a download that skipped a block or a disk that lost one, and decoders often play it. Not of
them is MJPEG: a flat picture may be all zeros."""
_HOLE = bytes(64)
_INSIDE = re.compile(rb"\0{64}[^\0\1]")
"""A hole, and not padding: that, cameras may write behind a picture or in front of a start code (0 0 1)."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video after its packets were read and one frame decoded."""

    width: int
    """Pixels, of the frames that come out (turned as the file says)."""
    height: int
    fps: float
    """Frames per second, from the time stamps: the mean over the video; 0 if the file does not say."""
    packets: int
    """Encoded pictures that are shown. Usually the number of frames; a few may not decode to a frame of their own."""
    codec: str
    """FFmpeg's name, e.g. ``h264``."""
    even: bool = True
    """Whether every frame is shown equally long; if not, a frame's number does not give its time."""
    notes: tuple[str, ...] = ()
    """What a person might want to know: interlaced, pixels that are not square, several video tracks."""


def probe(path: str | Path) -> VideoInfo:
    """Read the packets of a video, and decode its first frame.

    Raises:
        VideoError: the file is missing, empty, not a video, cut off, or nothing of it can be decoded.
    """
    with opened(Path(path)) as (container, stream), _errors():
        stamps: list[float] = []
        first = None
        for packet in _packets(container, stream):
            shown = packet.size and not packet.is_discard
            if shown:
                stamps.append(_seconds(packet.pts if packet.pts is not None else packet.dts, packet.time_base))
            if first is None:
                first = next(iter(_decoded(packet) or ()), None)
        if first is None:
            raise VideoError("no frame of the video can be decoded")
        steps = _orientation(first)
        width, height = (first.height, first.width) if steps[0] else (first.width, first.height)
        rate = rate_of(sorted(stamps), _nominal(stream))
        notes = _notes(container, stream, first)
        return VideoInfo(width, height, rate.fps, len(stamps), _codec(stream), rate.even, notes)


def read_video(
    path: str | Path,
    *,
    short_side: int | None = None,
    damaged_share: float = DAMAGED_SHARE,
    time_limit: float | None = None,
) -> "VideoFrames":
    """Decode a video frame by frame.

    Args:
        path: the file.
        short_side: frames whose shorter side is longer than this are shrunk to it (area averaging), keeping the ratio;
            None keeps the size.
        damaged_share: a video of which a larger share of the pictures is damaged is refused at its end; 0 refuses any
            damage, 1 none.
        time_limit: seconds that the decoding of the whole video may take, not counting what is done with the frames;
            None is no limit.

    Returns:
        An iterator over (H, W, 3) uint8 RGB frames, all of one size.

    Raises:
        VideoError: while iterating: the file is missing, empty, not a video, cut off or more damaged than allowed, its
            frames change size, none decodes, or it takes too long.

    Example:
        >>> frames = list(read_video("clip.avi"))
        >>> len(frames), frames[0].shape, frames[0].dtype
        (14, (48, 64, 3), dtype('uint8'))
    """
    return VideoFrames(Path(path), short_side, damaged_share, time_limit)


class VideoFrames(Iterator[np.ndarray]):
    """The frames of a video, one at a time; a context manager. See :func:`read_video`.

    Attributes:
        damage: what was found wrong so far; whole once the last frame is out.
    """

    def __init__(self, path: Path, short_side: int | None, damaged_share: float, time_limit: float | None) -> None:
        self.damage = Damage()
        self._stamps: list[float] = []
        self._nominal = 0.0
        self._frames = self._decode(path, short_side, damaged_share, time_limit)

    @property
    def times(self) -> list[float]:
        """Seconds at which the frames that are out are shown, the first at 0.

        Frames come in the order in which they are shown, so the stamps are sorted: some files have them in the order of
        decoding.
        """
        if any(stamp != stamp for stamp in self._stamps):  # an AVI may have none; its frames are equally long
            return [n / (self._nominal or 1.0) for n in range(len(self._stamps))]
        return [stamp - min(self._stamps) for stamp in sorted(self._stamps)]

    @property
    def rate(self) -> Rate:
        """Frames per second of the frames that are out."""
        return rate_of(self.times, self._nominal)

    def __next__(self) -> np.ndarray:
        return next(self._frames)

    def close(self) -> None:
        """Close the file."""
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(
        self, path: Path, short_side: int | None, damaged_share: float, time_limit: float | None
    ) -> Iterator[np.ndarray]:
        spent, began = 0.0, time.monotonic()
        with opened(path) as (container, stream), _errors() as reports:
            self._nominal = _nominal(stream)
            packets = solid = lost = reported = known = corrupt = seen = first = held = 0
            no_zeros = _codec(stream) in _NO_ZEROS
            needed, traces = promised(container, stream, path), Traces(container, path)
            size: tuple[int, int] | None = None
            steps = (False, False, False)
            convert = _Colours()
            for packet in _packets(container, stream, traces):
                packets += bool(packet.size)
                solid += packet.size > _PLACEHOLDER and not packet.is_discard
                frames = _decoded(packet)
                if frames and not first:
                    first = solid - lost
                held = len(frames or ())
                if frames is None:
                    lost += 1
                elif len(reports) > seen or packet.is_corrupt or (no_zeros and _has_hole(packet)):
                    # What the container complains of on the way to this packet is among the reports.
                    reported += 1
                if frames is None or reported > known:
                    traces.hurt()
                seen, known = len(reports), reported
                for frame in frames or ():
                    if size is None:
                        size, steps = (frame.width, frame.height), _orientation(frame)
                    if (frame.width, frame.height) != size:
                        raise VideoError(
                            f"the video changes size from {size[0]}x{size[1]} to {frame.width}x{frame.height} "
                            f"at picture {len(self._stamps)}"
                        )
                    corrupt += bool(frame.is_corrupt)
                    self._stamps.append(_seconds(frame.pts, frame.time_base))
                    self.damage = Damage(len(self._stamps), lost, reported, corrupt)
                    picture = shrink(oriented(convert(frame), steps), short_side)
                    spent += time.monotonic() - began
                    _check_time(spent, time_limit)
                    yield picture
                    began = time.monotonic()
                _check_time(spent + time.monotonic() - began, time_limit)
            if _codec(stream) in _ONE_EACH:
                # A cut that begins inside an open group of pictures has some that no decoder can show; they are no
                # damage. The last call, without a packet, gives those that the decoder held back all the time.
                leading = max(0, first - 1 - held)
                lost += max(0, solid - lost - len(self._stamps) - leading)
            missing = max(0, needed - packets) if needed else traces.missing()
            self.damage = Damage(len(self._stamps), lost, reported, corrupt, missing)
        if not self._stamps:
            raise VideoError("no frame of the video can be decoded")
        if self.damage.share > damaged_share:
            raise VideoError(f"{self.damage}; {damaged_share:.0%} are allowed (decode.damaged_share)")


class _Colours:
    """Converts frames to RGB as FFmpeg's own tools do: by the matrix and range they carry, else as limited BT.601."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        # One thread: by default FFmpeg starts one per core for each video, and workers are one per core already.
        made = self._reformatter.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        return made.to_ndarray()


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


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream, traces: Traces | None = None
) -> Iterator[av.Packet]:
    """The packets of a track, and an empty one at the end; a container that ends in the middle ends them.

    Args:
        traces: is told of them, and of those of the other tracks.
    """
    packets = container.demux() if traces else container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError):
            if traces:
                traces.stopped = True
            yield av.Packet()
            return
        ours = packet.stream.index == stream.index
        if traces:
            traces.note(packet, ours=ours)
        if ours:
            yield packet


def _decoded(packet: av.Packet) -> list[av.VideoFrame] | None:
    """The frames that come out of the decoder for a packet; None if it refuses the packet."""
    if packet.stream is None:
        return []
    try:
        return packet.decode()
    except av.FFmpegError:
        return None


def _has_hole(packet: av.Packet) -> bool:
    raw = bytes(packet)
    return _HOLE in raw and _INSIDE.search(raw) is not None


def _errors() -> av.logging.Capture:
    """FFmpeg's error lines of this thread, as a list that grows."""
    return av.logging.Capture(local=True)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    return orientation(_matrix(frame)) or (False, False, False)


def _matrix(frame: av.VideoFrame) -> bytes | None:
    return next((bytes(side) for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)


def _seconds(stamp: int | None, base: object) -> float:
    return float(stamp * base) if stamp is not None and base is not None else float("nan")


def _codec(stream: av.VideoStream) -> str:
    return stream.codec_context.codec.canonical_name


def _nominal(stream: av.VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else 0.0


def _notes(container: av.container.InputContainer, stream: av.VideoStream, frame: av.VideoFrame) -> tuple[str, ...]:
    notes = []
    if frame.interlaced_frame:
        notes.append("interlaced: moving edges look like combs")
    if orientation(_matrix(frame)) is None:
        notes.append("turned by an angle that is not a right one; frames come out as they are stored")
    ratio = stream.sample_aspect_ratio
    if ratio and ratio != 1:
        notes.append(
            f"pixels are not square ({ratio.numerator}:{ratio.denominator}); frames come out as they are stored"
        )
    if len(container.streams.video) > 1:
        notes.append(f"{len(container.streams.video)} video tracks; number {stream.index} is used")
    return tuple(notes)


def _check_time(spent: float, limit: float | None) -> None:
    if limit is not None and spent > limit:
        raise VideoError(f"decoding takes longer than the {limit:g} s allowed (decode.time_limit)")
