"""Small videos for tests: sound ones, and broken ones of every kind the stages must survive."""

from pathlib import Path

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
