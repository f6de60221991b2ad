"""The videos that are labelled, from the files and folders that a person names, and where their annotated copies go."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from han_core.video.container import is_video_name
from han_core.video.encode import fitting_name


@dataclass(frozen=True)
class Source:
    """A video, or a folder that has none to give."""

    path: Path
    copy: Path
    """File of the annotated copy."""
    fault: str = ""
    """Why there is no video to look for; "" for a video, which may be missing or damaged all the same."""


def find_sources(arguments: Iterable[Path], out: Path) -> list[Source]:
    """Every video once, with the file of its annotated copy; no two copies have one name.

    Args:
        arguments: videos, taken as they are, and folders, of which all videos are taken: nothing hidden, and nothing
            that lies in ``out``. A folder that cannot be read, or is without videos, becomes a source with a fault.
        out: folder of the copies.
    """
    found: dict[Path, str] = {}
    for path in arguments:
        for inside, fault in _below(path, out) if os.path.isdir(path) else [(path, _fault_of(path))]:
            found.setdefault(inside, fault)
    sources, taken = [], set()
    for path, fault in found.items():
        name, number = fitting_name(path.stem, ".predict.mp4"), 2
        while name in taken:
            name, number = fitting_name(f"{path.stem}-{number}", ".predict.mp4"), number + 1
        if not fault:
            taken.add(name)
        sources.append(Source(path, out / name, fault))
    return sources


def _fault_of(path: Path) -> str:
    """Of a path that is no folder; such a name can come from a list only."""
    return "is not the name of a file: it has a zero byte" if "\0" in str(path) else ""


def _below(folder: Path, out: Path) -> list[tuple[Path, str]]:
    """Videos in a folder and its subfolders, and subfolders that cannot be read with the reason, sorted."""
    found = sorted(_walk(folder, out))
    if found:
        return found
    return [(folder, "is a folder without videos" if os.listdir(folder) else "is a folder without a video")]


def _walk(folder: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """As :func:`_below`, in the order of the disk. Links to folders are not followed."""
    written = Path(os.path.realpath(out))
    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(place, name)) != str(written)
        ]
        for path in (Path(place, name) for name in files if is_video_name(name)):
            # A link that leads nowhere is taken too: that the video cannot be read is then said of it.
            is_video = os.path.isfile(path) or not os.path.exists(path)
            if is_video and written not in Path(os.path.realpath(path)).parents:
                yield path, ""
    for error in unreadable:
        yield Path(error.filename), f"the folder cannot be read ({error.strerror})"
