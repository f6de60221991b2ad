"""A look at each video's bytes: their hash, and whether a frame can be decoded."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2

from han_core.video.decode import VideoError, read_video

_CRASHED = "decoding it crashes the video library"


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


def inspect_videos(
    root: Path,
    paths: Sequence[str],
    *,
    workers: int,
    advance: Callable[[], None] = lambda: None,
    inspect: Callable[[Path], Inspection] = inspect_video,
) -> dict[str, Inspection]:
    """Inspect the files in parallel; a file that brings a worker down is a finding, not the end.

    Args:
        root: folder that the paths are relative to.
        paths: the files.
        workers: processes; 1 works in this one.
        advance: called after each file, to show progress.
        inspect: what is done with each file.

    Returns:
        Path -> what was found, in the order of ``paths``.
    """
    found = {}
    for path, inspection in _inspect_all(root, paths, workers, inspect):
        found[path] = inspection
        advance()
    return {path: found[path] for path in paths}


def _inspect_all(
    root: Path, paths: Sequence[str], workers: int, inspect: Callable[[Path], Inspection]
) -> Iterator[tuple[str, Inspection]]:
    if workers == 1 or len(paths) < 2:
        yield from ((path, inspect(root / path)) for path in paths)
        return
    left = dict.fromkeys(paths)
    with _pool(min(workers, len(paths))) as pool:
        futures: dict[Future, str] = {pool.submit(inspect, root / path): path for path in paths}
        for future in as_completed(futures):
            try:
                result = future.result()
            except BrokenProcessPool:
                continue
            del left[futures[future]]
            yield futures[future], result
    # A worker died, and with it all that was waiting. One file at a time tells which it was.
    waiting = list(left)
    while waiting:
        with _pool(1) as pool:
            while waiting:
                path = waiting.pop(0)
                try:
                    yield path, pool.submit(inspect, root / path).result()
                except BrokenProcessPool:
                    yield path, Inspection("", _CRASHED)
                    break


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawn: a forked child hangs once OpenCV has started threads in the parent.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    )
