"""Split files in UCF-101's form: ``trainlistNN.txt`` and ``testlistNN.txt``, one ``<class>/<video> [label]`` a line."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from han_core.datasets.listing import Problem

_LIST_NAME = re.compile(r"(train|test)list0*([1-9]\d*)\.txt")

_NEVER = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Line:
    """One line of a list."""

    where: str
    """File name and line number."""
    path: str
    class_name: str
    """The folder that the path names."""
    label: int | None
    """As in the file, counted from 1; None where the line has none."""


def available_lists(folder: Path) -> dict[int, dict[str, Path]]:
    """Split number -> {``train``: file, ``test``: file}, for the splits of which both files are there."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _LIST_NAME.fullmatch(path.name):
            found.setdefault(int(match[2]), {})[match[1]] = path
    return {number: files for number, files in sorted(found.items()) if len(files) == 2}


def read_list(path: Path) -> tuple[list[Line], list[Problem]]:
    """The lines of one list; lines that are not ``<class>/<video> [label]`` come back as a problem."""
    lines, bad = [], []
    for number, text in read_lines(path):
        where = f"{path.name} line {number}"
        head, _, tail = text.rpartition(" ")
        video, label = (head.rstrip(), int(tail)) if head and tail.isdecimal() else (text, None)
        parts = video.replace("\\", "/").split("/")
        if len(parts) != 2 or not all(is_component(part) for part in parts):
            bad.append(f"{where}: {text}")
            continue
        lines.append(Line(where, "/".join(parts), parts[0], label))
    return lines, [Problem("error", "lines of a split file that are not <class>/<video>", tuple(bad))] if bad else []


def is_component(part: str) -> bool:
    """Whether a part of a path names one file or folder, so that it leads to no other place."""
    return part not in ("", ".", "..") and not _NEVER.search(part)


def read_lines(path: Path) -> Iterable[tuple[int, str]]:
    """(number from 1, text) of each line that is not empty, without the line's end, whatever its kind."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape").removeprefix("\ufeff")
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def twice(lines: Iterable[Line]) -> list[str]:
    """``where: path`` of each line that repeats the path of an earlier one."""
    seen: set[str] = set()
    repeated = []
    for line in lines:
        if line.path in seen:
            repeated.append(f"{line.where}: {line.path}")
        seen.add(line.path)
    return repeated
