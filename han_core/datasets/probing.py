"""A look at each video's bytes: their hash, and whether a frame can be decoded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from han_core.video.decode import VideoError, read_video

CRASHED = "decoding it crashes the video library"


@dataclass(frozen=True)
class Inspection:
    """What was found in one file."""

    sha256: str
    """Hex digest of its bytes; empty if they cannot be read."""
    problem: str = ""
    """Why no frame can be had; empty if one can."""


def inspect_video(path: Path) -> Inspection:
    """Hash one file and try to decode its first frame. Never raises for a bad file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Inspection("", f"the video file cannot be read ({error.strerror})")
    frames = read_video(path)
    try:
        next(frames)
    except VideoError as error:
        return Inspection(digest, str(error))
    finally:
        frames.close()
    return Inspection(digest)
