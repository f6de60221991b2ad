"""The clips of a dataset: which videos there are, their classes, groups and roles in each split.

A :class:`ClipTable` is what stage ``prepare`` writes to ``data/<dataset>/clips.csv`` and every later stage reads. Names
become those of files, so a table, wherever it comes from, has none that leads to another folder.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from han_core.errors import REPAIR, HanError
from han_core.tables.checked import CRC, TableError, read_table, write_table

ROLES = ("train", "validation", "test")
UNUSED = ""
LONGEST_NAME = 200
"""Bytes of a clip's or a class's name in UTF-8; file systems take 255, of which endings need some."""
_COLUMNS = ("clip", "path", "class", "label", "group", "sha256", "damaged")
_SPLIT_COLUMN = re.compile(r"split_([1-9][0-9]{0,8})")
_LABEL = re.compile(r"[0-9]{1,9}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARE = re.compile(r"[0-9]{1,12}/[0-9]{1,12}")
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, as which Python reads bytes that are not UTF-8."""
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_PART, _LONGEST_PATH = 255, 4096
_SHOWN = 20


class ClipTableError(HanError, ValueError):
    """A clips file that cannot be read, or lacks what is asked of it; the message says what and what to do."""


@dataclass(frozen=True)
class Clip:
    """One video of a dataset."""

    name: str
    """Unique in its class: the stem of the video file, and of every clip file made from it."""
    path: str
    """The video, POSIX, relative to the dataset's root."""
    class_name: str
    label: int
    """Index into :attr:`ClipTable.classes`, from 0."""
    group: str
    """Clips of a group share a scene, a person or a source; a group should not straddle train and test."""
    roles: Mapping[int, str] = field(hash=False)
    """Split number -> ``train``, ``validation``, ``test``, or ``""`` where the split does not use the clip."""
    sha256: str = ""
    """Hex digest of the video's bytes."""
    damaged: str = ""
    """How many of the video's pictures are damaged, e.g. ``3/60``; "" for a sound one."""

    @property
    def key(self) -> str:
        """``<class>/<name>``, unique in the dataset: two classes may each have a ``1.mp4``."""
        return f"{self.class_name}/{self.name}"


@dataclass(frozen=True)
class ClipTable:
    """All clips of a dataset, sorted by class and name.

    Raises:
        ClipTableError: a name occurs twice or cannot be that of a file, a path leads out of the dataset's folder, a
            label does not fit its class, a class has no clip, or a clip lacks the role of a split.
    """

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    """Class names in the order of the labels."""
    splits: tuple[int, ...]
    """Numbers of the splits, ascending."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clips", tuple(sorted(self.clips, key=lambda c: (c.class_name, c.name))))
        problems = list(_problems(self))
        if problems:
            shown = problems[:_SHOWN]
            more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
            raise ClipTableError("\n".join([*shown, *more]))

    def select(self, split: int, role: str) -> tuple[Clip, ...]:
        """Clips that have ``role`` in ``split``, in the order of the table.

        Raises:
            ClipTableError: the table has no such split.
            ValueError: there is no such role.
        """
        self.require(split)
        if role not in ROLES:
            raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
        return tuple(clip for clip in self.clips if clip.roles[split] == role)

    def require(self, split: int) -> None:
        """Raise ClipTableError if the table has no such split."""
        if split not in self.splits:
            known = ", ".join(map(str, self.splits))
            raise ClipTableError(
                f"split {split} is not in the clips table, which has {known}; set splits and run stage prepare"
            )


def unfit_name(name: str) -> str:
    """Why a clip or a class cannot have this name; "" if it can. It becomes that of files and folders."""
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        return "is not the name of one file or folder"
    if _NEVER.search(name):
        return "holds a control character, or one that no text has"
    if len(name.encode()) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    return ""


def unfit_path(path: str) -> str:
    """Why a path cannot be that of a video, POSIX and relative to the dataset's root; "" if it can."""
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts or "\\" in path or _DRIVE.match(path):
        return "is not a path inside the dataset's folder"
    if _NEVER.search(path):
        return "holds a control character, or one that no text has"
    if len(path.encode()) > _LONGEST_PATH or max(len(part.encode()) for part in parts) > _LONGEST_PART:
        return "is longer than any path can be"
    return ""


def _problems(table: ClipTable) -> Iterable[str]:
    if len(set(table.classes)) < len(table.classes):
        yield "a class is listed twice"
    for name in table.classes:
        if fault := unfit_name(name):
            yield f"class {_shown(name)}: its name {fault}"
    if list(table.splits) != sorted(set(table.splits)) or any(split < 1 for split in table.splits):
        yield f"splits must be numbers from 1, ascending and each given once, not {table.splits}"
    seen: set[str] = set()
    for clip in table.clips:
        if clip.key in seen:
            yield f"clip {_shown(clip.key)} occurs twice"
        seen.add(clip.key)
        if fault := unfit_name(clip.name):
            yield f"clip {_shown(clip.key)}: its name {fault}"
        if fault := unfit_path(clip.path):
            yield f"clip {_shown(clip.key)}: its path {_shown(clip.path)} {fault}"
        if clip.sha256 and not _SHA256.fullmatch(clip.sha256):
            yield f"clip {_shown(clip.key)}: sha256 {_shown(clip.sha256)} is not 64 hexadecimal digits"
        if clip.damaged and not _SHARE.fullmatch(clip.damaged):
            yield f"clip {_shown(clip.key)}: damaged {_shown(clip.damaged)} is not like 3/60"
        if not 0 <= clip.label < len(table.classes) or table.classes[clip.label] != clip.class_name:
            yield f"clip {_shown(clip.key)}: label {clip.label} is not that of class {_shown(clip.class_name)}"
        for split in table.splits:
            if clip.roles.get(split) not in (*ROLES, UNUSED):
                role = _shown(repr(clip.roles.get(split)))
                yield f"clip {_shown(clip.key)}: role {role} in split {split} is none of {', '.join(ROLES)} or empty"
    for name in sorted(set(table.classes) - {clip.class_name for clip in table.clips}):
        yield f"class {_shown(name)} has no clip"


def _shown(text: str) -> str:
    """A name as it may be printed: one line, and no longer than one."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."


def write_clips(table: ClipTable, path: str | Path) -> None:
    """Write a table as CSV (UTF-8, ``\\n``): clip, path, class, label, group, sha256, damaged, split_1, split_2, ..,
    and last crc32, the checksum of the line (:mod:`han_core.tables.checked`)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = [*_COLUMNS, *(f"split_{split}" for split in table.splits)]
    write_table(path, header, (_values(clip, table.splits) for clip in table.clips))


def _values(clip: Clip, splits: Iterable[int]) -> list[object]:
    facts = [clip.name, clip.path, clip.class_name, clip.label, clip.group, clip.sha256, clip.damaged]
    return [*facts, *(clip.roles[split] for split in splits)]


def read_clips(path: str | Path) -> ClipTable:
    """Read what :func:`write_clips` wrote.

    Raises:
        ClipTableError: the file is missing, damaged in any byte, lacks a column, or contradicts itself.
    """
    path = Path(path)
    if not path.exists():
        raise ClipTableError(f"{path}: cannot be read (No such file or directory); run stage prepare first")
    try:
        header, rows = read_table(path)
    except TableError as error:
        raise ClipTableError(f"{error}; run stage prepare again ({REPAIR})") from None
    splits = _splits(path, header)
    clips = [_clip(path, line, row, splits) for line, row in enumerate(rows, start=2)]
    if not clips:
        raise ClipTableError(f"{path}: holds no clip; run stage prepare again")
    names = {clip.label: clip.class_name for clip in clips}
    if sorted(names) != list(range(len(names))):
        raise ClipTableError(f"{path}: labels must run from 0 without a gap; run stage prepare again")
    try:
        return ClipTable(tuple(clips), tuple(names[label] for label in sorted(names)), splits)
    except ClipTableError as error:
        raise ClipTableError(f"{path}: {error}; run stage prepare again") from None


def _splits(path: Path, header: Sequence[str]) -> tuple[int, ...]:
    columns, found = header[: len(_COLUMNS)], [_SPLIT_COLUMN.fullmatch(name) for name in header[len(_COLUMNS) :]]
    if tuple(columns) != _COLUMNS or None in found:
        wanted = ", ".join((*_COLUMNS, "split_1", "..", CRC))
        raise ClipTableError(f"{path}: line 1: the columns must be {wanted}; run stage prepare again")
    return tuple(int(match[1]) for match in found)


def _clip(path: Path, line: int, row: Sequence[str], splits: Sequence[int]) -> Clip:
    name, video, class_name, label, group, sha256, damaged, *roles = row
    if not _LABEL.fullmatch(label):
        raise ClipTableError(f"{path}: line {line}: label {_shown(label)} is not a number; run stage prepare again")
    by_split = dict(zip(splits, roles, strict=True))
    return Clip(name, video, class_name, int(label), group, by_split, sha256, damaged)
