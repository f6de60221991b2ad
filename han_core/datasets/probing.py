"""A look at each video before any work: its hash, and all of its frames decoded once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from han_core.video.container import is_link_out
from han_core.video.damage import Damage
from han_core.video.decode import DAMAGED_SHARE, VideoError, VideoInfo, probe, read_video

CRASHED = "decoding it crashes the video library"


@dataclass(frozen=True)
class Inspection:
    """What was found in one file."""

    sha256: str
    """Hex digest of its bytes; empty if they cannot be read."""
    problem: str = ""
    """Why the stages cannot use it; empty if they can."""
    damage: Damage | None = None
    """Of a video that can be used all the same; None of a sound one."""
    info: VideoInfo | None = None
    """None of a video that cannot be used."""
    frames: int = 0
    """That were decoded; 0 of a video that cannot be used."""


def inspect_video(
    path: Path,
    *,
    root: Path | None = None,
    damaged_share: float = DAMAGED_SHARE,
    time_limit: float | None = None,
    smallest_side: int = 1,
) -> Inspection:
    """Hash one file and decode all of it. Never raises for a bad file.

    Args:
        root: a file whose links, or those of its folders, lead out of this folder is refused; None looks at no links.
        damaged_share, time_limit: see :func:`han_core.video.decode.read_video`.
        smallest_side: pixels; a video whose frames have a shorter side is refused, as no flow can be computed of them.
    """
    if root is not None and is_link_out(path, root):
        return Inspection("", "the file is a link out of the dataset's folder; put the video itself there")
    try:
        if not path.exists():
            return Inspection("", "the video file is missing")
        if not path.is_file():
            return Inspection("", "the video file cannot be read: it is not a regular file")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Inspection("", f"the video file cannot be read ({error.strerror})")
    try:
        info = probe(path)
        with read_video(path, damaged_share=damaged_share, time_limit=time_limit) as frames:
            count = sum(1 for _ in frames)
    except VideoError as error:
        return Inspection(digest, str(error))
    if count == 1:
        return Inspection(digest, "the video has one frame; flow needs two")
    if min(info.width, info.height) < smallest_side:
        size = f"{info.width}x{info.height} pixels"
        return Inspection(digest, f"the frames are {size}; flow needs {smallest_side} per side, or set flow.size")
    return Inspection(digest, "", frames.damage or None, info, count)
