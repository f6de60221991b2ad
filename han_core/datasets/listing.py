"""What a dataset's folders and split files say, before it is checked against itself.

Each reader (``ucf101.py``, ``hmdb51.py``, ``folder.py``, ``ut_interaction.py``, ``video_list.py``) returns a
:class:`Listing`; ``checks.py`` finds what is wrong with one, ``assemble.py`` turns a sound one into a clips table.
"""

import os
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from han_core.video.container import VIDEO_EXTENSIONS, is_video_name

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
    given_name: str = ""
    """The clip's name where the file's place does not make it."""
    where: str = ""
    """Line of the list that names the clip, e.g. ``line 7``; "" where that is of no help."""

    @property
    def name(self) -> str:
        """Stem of the file, in composed Unicode; in a folder of a split, that folder's name stands before it."""
        if self.given_name:
            return self.given_name
        path = PurePosixPath(self.path)
        return unicode_form("-".join([*path.parts[:-2], path.stem]))


@dataclass(frozen=True)
class Split:
    """Paths, relative to the root, as the split says them; faulty lists may say one twice."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()
    """Where the data brings its own; ``dataset.validation_share`` holds out others beside it."""


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

    def resolve(self, path: str) -> str:
        """The path on disk that is the same text in Unicode as the given one; the given one where there is none.

        macOS writes names in decomposed form, most lists are written in composed form.
        """
        return path if path in self.paths else self._by_form.get(unicode_form(path), path)

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return {unicode_form(path): path for path in self.paths}


JUNK = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "System Volume Information"})
"""Folders that archives, disks and network drives leave behind."""
_JUNK_FILES = frozenset({"Thumbs.db", "desktop.ini"})


LINKS = (
    "folders that are links: DVC does not see what changes behind them; make dataset.root itself the link, or put the "
    "folders there"
)
"""Title of the problem of folders between a root and its files that are links."""


def unicode_form(text: str) -> str:
    """The form in which names are compared: composed (NFC)."""
    return unicodedata.normalize("NFC", text)


def scan_class_folders(root: Path, expected: Collection[str] = ()) -> ClassFolders:
    """List ``root/<class>/<video>``; hidden files and folders (``.name``) are left alone.

    Args:
        root: an existing folder.
        expected: names in ``root`` that are not class folders and need no mention.
    """
    videos: dict[str, tuple[str, ...]] = {}
    stray, nested, other, links, forms = [], [], [], [], []
    loose: list[str] = []
    for entry in _visible(root):
        if entry.name in expected:
            continue
        if not entry.is_dir():
            (loose if is_video_name(entry.name) else stray).append(entry.name)
            continue
        if entry.is_symlink():
            links.append(entry.name)
            continue
        found, inside = _class_folder(entry, other)
        nested += inside
        class_name = unicode_form(entry.name)
        if class_name in videos:
            forms.append(class_name)
        videos[class_name] = (*videos.get(class_name, ()), *found)
    deep = [path for path in nested if not videos.get(unicode_form(path.split("/")[0]))]
    layout = f"expected {root}/<class>/<video>"
    problems = [
        Problem(severity, title, tuple(items))
        for severity, title, items in (
            ("error", f"videos lie beside the class folders; {layout}: put each into the folder of its class", loose),
            (
                "error",
                f"videos lie a folder too deep; {layout}: move them up, or set dataset.root one folder down",
                deep,
            ),
            ("error", LINKS, links),
            ("warning", f"files beside the class folders of {root} are ignored", stray),
            ("warning", "folders inside class folders are ignored; move their videos up", sorted({*nested} - {*deep})),
            ("warning", f"files that are not videos are ignored (known: {' '.join(sorted(VIDEO_EXTENSIONS))})", other),
            ("warning", "class folders whose names differ only in their Unicode form are one class", forms),
        )
        if items
    ]
    return ClassFolders(videos, tuple(problems))


def linked_inside(root: Path, folder: Path) -> list[Problem]:
    """The problem of a folder that lies in a root and is a link, or is reached by one; none of a folder elsewhere."""
    start, end = (Path(os.path.normpath(path.absolute())) for path in (root, folder))
    if start == end or not end.is_relative_to(start):
        return []
    below = [path for path in reversed([end, *end.parents]) if path != start and path.is_relative_to(start)]
    links = tuple(path.relative_to(start).as_posix() for path in below if path.is_symlink())
    return [Problem("error", LINKS, links)] if links else []


def _class_folder(folder: Path, other: list[str]) -> tuple[list[str], list[str]]:
    """Videos of a class folder, and folders in it; what is neither goes to ``other``."""
    found, nested = [], []
    for item in _visible(folder):
        path = f"{folder.name}/{item.name}"
        if item.is_dir():
            nested.append(f"{path}/")
        elif is_video_name(item.name):
            found.append(path)
        else:
            other.append(path)
    return found, nested


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, but for hidden entries and what systems leave behind."""
    names = JUNK | _JUNK_FILES
    return sorted(
        (p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in names), key=lambda p: p.name
    )
