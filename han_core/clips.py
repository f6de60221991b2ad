"""The clips of a dataset: which videos there are, their classes, groups and roles in each split.

A :class:`ClipTable` is what stage ``prepare`` writes to ``data/<dataset>/clips.csv`` and every later stage reads.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from han_core.errors import HanError

ROLES = ("train", "validation", "test")
UNUSED = ""
_COLUMNS = ("clip", "path", "class", "label", "group", "sha256")
_DAMAGED = "damaged"
_SPLIT_COLUMN = re.compile(r"split_([1-9]\d*)")


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
        ValueError: a name occurs twice, a label does not fit its class, a class has no clip, or a clip lacks the
            role of a split.
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
            raise ValueError("\n".join(problems))

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


def _problems(table: ClipTable) -> Iterable[str]:
    if len(set(table.classes)) < len(table.classes):
        yield "a class is listed twice"
    if list(table.splits) != sorted(set(table.splits)):
        yield f"splits must be ascending and each given once, not {table.splits}"
    seen: set[str] = set()
    for clip in table.clips:
        if clip.key in seen:
            yield f"clip {clip.key} occurs twice"
        seen.add(clip.key)
        if not 0 <= clip.label < len(table.classes) or table.classes[clip.label] != clip.class_name:
            yield f"clip {clip.name}: label {clip.label} is not that of class {clip.class_name}"
        for split in table.splits:
            if clip.roles.get(split) not in (*ROLES, UNUSED):
                role = clip.roles.get(split)
                yield f"clip {clip.name}: role {role!r} in split {split} is not one of {', '.join(ROLES)} or empty"
    for name in sorted(set(table.classes) - {clip.class_name for clip in table.clips}):
        yield f"class {name} has no clip"


def write_clips(table: ClipTable, path: str | Path) -> None:
    """Write a table as CSV (UTF-8, ``\\n``): clip, path, class, label, group, sha256,
    damaged, split_1, split_2, ..."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, _DAMAGED, *(f"split_{split}" for split in table.splits)])
        for clip in table.clips:
            roles = (clip.roles[split] for split in table.splits)
            values = (clip.name, clip.path, clip.class_name, clip.label, clip.group, clip.sha256, clip.damaged)
            writer.writerow([*values, *roles])


def read_clips(path: str | Path) -> ClipTable:
    """Read what :func:`write_clips` wrote.

    Raises:
        ClipTableError: the file is missing, lacks a column, or contradicts itself.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            splits = _split_columns(path, reader.fieldnames or ())
            clips = [_parse_row(path, reader.line_num, row, splits) for row in reader]
    except OSError as error:
        raise ClipTableError(f"{path}: cannot be read ({error.strerror}); run stage prepare first") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ClipTableError(f"{path}: is not a CSV file in UTF-8 ({error}); run stage prepare again") from None
    if not clips:
        raise ClipTableError(f"{path}: holds no clip; run stage prepare again")
    names = {clip.label: clip.class_name for clip in clips}
    if sorted(names) != list(range(len(names))):
        raise ClipTableError(f"{path}: labels must run from 0 without a gap, not {sorted(names)}")
    try:
        return ClipTable(tuple(clips), tuple(names[label] for label in sorted(names)), splits)
    except ValueError as error:
        raise ClipTableError(f"{path}: {error}; run stage prepare again") from None


def _split_columns(path: Path, columns: Iterable[str]) -> tuple[int, ...]:
    columns = list(columns)
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ClipTableError(f"{path}: has no column {', '.join(missing)}; run stage prepare again")
    found = (_SPLIT_COLUMN.fullmatch(name) for name in columns)
    return tuple(int(match[1]) for match in found if match)


def _parse_row(path: Path, line: int, row: dict, splits: Iterable[int]) -> Clip:
    if None in row or None in row.values():
        raise ClipTableError(f"{path}: line {line} does not have as many fields as the header")
    if not row["label"].isdecimal():
        raise ClipTableError(f"{path}: line {line}: label {row['label']!r} is not a number")
    return Clip(
        name=row["clip"],
        path=row["path"],
        class_name=row["class"],
        label=int(row["label"]),
        group=row["group"],
        roles={split: row[f"split_{split}"] for split in splits},
        sha256=row["sha256"],
        damaged=row.get(_DAMAGED, ""),
    )
