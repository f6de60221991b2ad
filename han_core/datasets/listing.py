"""What a dataset's folders and split files say, before it is checked against itself.

Each reader (``ucf101.py``, ``hmdb51.py``, ``folder.py``, ``ut_interaction.py``) returns a :class:`Listing`;
``checks.py`` finds what is wrong with one, ``assemble.py`` turns a sound one into a clips table.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from han_core.video.decode import VIDEO_EXTENSIONS

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """One kind of thing that is wrong, and everything it is wrong with."""

    severity: Severity
    title: str
    """What is wrong and what to do."""
    items: tuple[str, ...] = ()
    """The clips, files or lines concerned."""


@dataclass(frozen=True)
class Video:
    """One clip as the dataset names it; the file need not exist."""

    path: str
    """POSIX, relative to the dataset's root."""
    class_name: str
    group: str

    @property
    def name(self) -> str:
        """Stem of the file."""
        return PurePosixPath(self.path).stem


@dataclass(frozen=True)
class Split:
    """Paths, relative to the root, as the split says them; faulty lists may say one twice."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """A dataset as its files describe it."""

    videos: tuple[Video, ...]
    """Every clip that a split below uses."""
    classes: tuple[str, ...]
    """Classes of these clips, in the order of their labels."""
    splits: Mapping[int, Split]
    """The requested splits that there are."""
    available: tuple[int, ...] | None
    """Numbers of all splits that there are; None where any positive number is one."""
    on_disk: frozenset[str]
    """Every video in a class folder, relative to the root."""
    straddling: Severity = "error"
    """How bad it is if a group has clips in both train and test of a split."""
    problems: tuple[Problem, ...] = ()
    """What was wrong with the files that were read."""


@dataclass(frozen=True)
class ClassFolders:
    """What lies in the class folders of a root."""

    videos: Mapping[str, tuple[str, ...]]
    """Class folder -> its videos, relative to the root, sorted. A folder without videos has none."""
    problems: tuple[Problem, ...]

    @property
    def paths(self) -> frozenset[str]:
        """All videos."""
        return frozenset(path for paths in self.videos.values() for path in paths)


def scan_class_folders(root: Path, expected: Collection[str] = ()) -> ClassFolders:
    """List ``root/<class>/<video>``; hidden files and folders (``.name``) are left alone.

    Args:
        root: an existing folder.
        expected: names in ``root`` that are not class folders and need no mention.
    """
    videos: dict[str, tuple[str, ...]] = {}
    stray, nested, other = [], [], []
    for entry in _visible(root):
        if entry.name in expected:
            continue
        if not entry.is_dir():
            stray.append(entry.name)
            continue
        found = []
        for item in _visible(entry):
            path = f"{entry.name}/{item.name}"
            if item.is_dir():
                nested.append(f"{path}/")
            elif item.suffix.lower() in VIDEO_EXTENSIONS:
                found.append(path)
            else:
                other.append(path)
        videos[entry.name] = tuple(found)
    problems = [
        Problem("warning", title, tuple(items))
        for title, items in (
            (f"files beside the class folders of {root} are ignored", stray),
            ("folders inside class folders are ignored; move their videos up", nested),
            (f"files that are not videos are ignored (known: {' '.join(sorted(VIDEO_EXTENSIONS))})", other),
        )
        if items
    ]
    return ClassFolders(videos, tuple(problems))


def _visible(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)
