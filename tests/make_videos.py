"""Small videos for tests: sound ones, and broken ones of every kind the stages must survive."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def moving_frames(count: int, *, width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """(count, height, width, 3) uint8 BGR: a smooth texture that moves one pixel to the right a frame."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([np.roll(texture, i, axis=1) for i in range(count)])


def write_video(path: Path, frames: np.ndarray, *, fourcc: str = "MJPG", fps: float = 25.0) -> Path:
    """Write BGR frames; MJPG in AVI is reproducible and decodes everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, frames.shape[2:0:-1])
    assert writer.isOpened(), f"this OpenCV cannot write {fourcc} into {path.suffix}"
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def make_video(path: Path, count: int, **options) -> Path:
    """A sound video of ``count`` frames."""
    return write_video(path, moving_frames(count, **options))


def make_truncated(path: Path, *, count: int = 20) -> Path:
    """A video whose second half is missing."""
    whole = make_video(path, count).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def make_size_change(path: Path, *, count: int = 6) -> Path:
    """A bare MJPEG stream (``.mjpeg``) of two sizes. In AVI: one video behind the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [moving_frames(count, width=64, height=48), moving_frames(count, width=32, height=40)]
    if path.suffix == ".mjpeg":
        path.write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for part in parts for frame in part))
        return path
    files = [write_video(path.with_stem(f"{path.stem}{i}"), part) for i, part in enumerate(parts)]
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    for file in files:
        file.unlink()
    return path


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    stamps: list[float] | None = None,
    rate: int = 25,
    pixels: str = "yuv420p",
    colours: tuple[int, int] | None = None,
    **options: str,
) -> Path:
    """Write RGB frames (N, H, W, 3) with FFmpeg.

    Args:
        stamps: seconds of each frame; evenly by ``rate`` where None.
        colours: matrix and range, as ISO/IEC 23091-2 numbers the first and FFmpeg the second (1 limited, 2 full); the
            frames are converted accordingly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        base = Fraction(1, rate if stamps is None else 1000)
        stream.codec_context.time_base = base
        if colours:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if colours:
                frame = frame.reformat(format=pixels, dst_colorspace=colours[0], dst_color_range=colours[1])
                frame.colorspace, frame.color_range = colours
            frame.pts, frame.time_base = (number if stamps is None else round(1000 * stamps[number])), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copied(source: Path, target: Path, keep: Callable[[int], bool], **stream_options: int) -> Path:
    """Copy the packets of a video whose number ``keep`` accepts, as ``ffmpeg -c copy`` does."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(old.streams.video[0]) if p.size):
            if keep(number):
                packet.stream = stream
                new.mux(packet)
    return target


def zeroed(path: Path, *numbers: int) -> Path:
    """Overwrite some packets of a video but for their first four bytes, the container left as it is."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    raw = bytearray(path.read_bytes())
    for number in numbers:
        position, size = packets[number]
        raw[position + 4 : position + size] = bytes(size - 4)
    path.write_bytes(raw)
    return path
