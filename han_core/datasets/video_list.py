"""Videos wherever they lie, named by a CSV: ``path`` and ``class``, and where there are any ``group`` and splits.

A column ``split`` is split 1; ``split1``, ``split2``, .. (or ``split_1``, ..) are several. Their values are ``train``,
``validation``, ``test``, or nothing where the split leaves the clip out. Without such columns splits are drawn, as of
class folders. Labels follow the sorted names of the classes.

A clip is named by the stem of its file; where clips of a class share it, by as many of the folders above as tell them
apart, ``p01-wave`` and ``p02-wave``. So a line that is added or moved leaves the names of the others, but for those it
shares a name with.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from han_core.datasets.delimited import Delimited, DelimitedError, Row, located, parse, read_text
from han_core.datasets.folder import SIDES, FolderRules, draw_splits
from han_core.datasets.listing import Listing, Problem, Split, Video, unicode_form

_SPLIT = re.compile(r"split(?:_?([1-9]\d{0,3}))?")
_ROLES = {name: role for role, names in SIDES.items() for name in names}


@dataclass(frozen=True)
class _Line:
    """A line that can be used."""

    number: int
    path: str
    class_name: str
    group: str
    roles: Mapping[int, str]


def list_videos(
    file: Path, rules: FolderRules, splits: Sequence[int], *, seed: int, base: Path | None = None
) -> Listing:
    """Read the list and look which videos there are.

    Args:
        file: the CSV.
        rules: how splits are drawn where the CSV has none.
        splits: numbers of the requested splits.
        seed: decides which groups a fold or a fraction takes.
        base: folder that relative paths start from and all videos lie in; None is the CSV's. Paths of the listing are
            relative to it.
    """
    try:
        table = parse(read_text(file))
    except DelimitedError as error:
        return _nothing([Problem("error", str(error))])
    numbers, problems = _columns(table, file.name)
    if any(problem.severity == "error" for problem in problems):
        return _nothing(problems)
    if not table.rows and not table.faults:
        problems.append(Problem("error", f"{file.name}: has no rows; write a line for each video below the first"))
        return _nothing(problems)
    folder = Path(os.path.normpath((base or file.parent).absolute()))
    lines, faults = _lines(table, numbers, folder, file.name)
    problems += faults
    names = clip_names({line.path: line.class_name for line in lines})
    videos = [
        Video(line.path, line.class_name, line.group or line.path, names[line.path], f"line {line.number}")
        for line in lines
    ]
    if numbers:
        available: tuple[int, ...] | None = tuple(sorted(numbers.values()))
        found = {n: _split(lines, n) for n in splits if n in available}
        used = {path for split in found.values() for path in (*split.train, *split.validation, *split.test)}
    elif rules.split_by == "list":
        problems.append(Problem("error", f"{file.name}: has no column split, but dataset.folder.split_by is list"))
        found, available, used = {}, None, set()
    else:
        found, available = draw_splits(videos, rules, splits, seed)
        used = {video.path for video in videos}
    return Listing(
        videos=tuple(video for video in videos if video.path in used),
        classes=tuple(sorted({video.class_name for video in videos if video.path in used})),
        splits=found,
        available=available,
        on_disk=frozenset(line.path for line in lines if not _is_missing(folder / line.path)),
        problems=tuple(problems),
    )


def _nothing(problems: Sequence[Problem]) -> Listing:
    return Listing((), (), {}, None, frozenset(), problems=tuple(problems))


def _columns(table: Delimited, name: str) -> tuple[dict[str, int], list[Problem]]:
    """Column -> number of the split that it holds, and what is wrong with the first line."""
    problems = []
    numbers = {column: int(match[1] or 1) for column in table.columns if (match := _SPLIT.fullmatch(column))}
    if absent := [column for column in ("path", "class") if column not in table.columns]:
        have = ", ".join(table.columns[:20]) or "none"
        title = f"{name}: the first line must name the columns path and class; it names {have}. Missing"
        problems.append(Problem("error", title, tuple(absent)))
    twice = [column for column, count in Counter(table.columns).items() if count > 1 and column]
    twice += [f"split {n} ({', '.join(sorted(c for c in numbers if numbers[c] == n))})"
              for n, count in Counter(numbers.values()).items() if count > 1]  # fmt: skip
    if twice:
        problems.append(Problem("error", f"{name}: columns that are there twice", tuple(twice)))
    known = ("path", "class", "group", "split")
    unknown = [column for column in table.columns if column not in known and column not in numbers]
    if unknown:
        guesses = {column: get_close_matches(column, known, n=1) for column in unknown}
        items = (
            f"{column}; is it {guesses[column][0]}?" if guesses[column] else column or "(no name)" for column in unknown
        )
        title = f"{name}: columns that are not used (known: path, class, group, split, split1, split2, ..)"
        problems.append(Problem("warning", title, tuple(items)))
    return numbers, problems


def _lines(table: Delimited, numbers: Mapping[str, int], base: Path, name: str) -> tuple[list[_Line], list[Problem]]:
    """The lines that can be used, each file once, and what is wrong with the others."""
    lines: dict[str, _Line] = {}
    no_path, no_class, no_group, roles_unknown, outside, twice = [], [], [], [], [], []
    strangers: list[Path] = []
    for row in table.rows:
        where = f"line {row.line}"
        roles, unknown = _roles(row, numbers)
        roles_unknown += [f"{where}: {value}" for value in unknown]
        text, class_name = row.values["path"], unicode_form(row.values["class"])
        if not class_name:
            no_class.append(f"{where}: {text}" if text else where)
        if not text:
            no_path.append(where)
            continue
        group = unicode_form(row.values.get("group", ""))
        if "group" in table.columns and not group:
            no_group.append(f"{where}: {text}")
        video = _as_written_on_disk(located(text, base))
        if not video.is_relative_to(base):
            outside.append(f"{where}: {text}")
            strangers.append(video)
            continue
        path = video.relative_to(base).as_posix()
        if path in lines:
            twice.append(f"{where}: {text}, as line {lines[path].number}")
        elif class_name and not unknown:
            lines[path] = _Line(row.line, path, class_name, group, roles)
    around = os.path.commonpath([base, *(video.parent for video in strangers)])
    spellings: dict[str, set[str]] = {}
    for line in lines.values():
        spellings.setdefault(line.class_name.casefold(), set()).add(line.class_name)
    cases = [" and ".join(sorted(found)) for found in spellings.values() if len(found) > 1]
    problems = [
        Problem(severity, f"{name}: {title}", tuple(items))
        for severity, title, items in (
            ("error", "lines that cannot be read", table.faults),
            ("error", "lines without a path", no_path),
            ("error", "lines without a class", no_class),
            ("error", f"values of split columns that are none of {', '.join(_ROLES)}, or empty", roles_unknown),
            (
                "error",
                f"videos outside of {base}; set dataset.base to a folder that holds all, {around} (relative paths then "
                "start there)",
                outside,
            ),
            ("error", "videos that are named twice", twice),
            ("warning", "lines without a group; each counts as a group of its own", no_group),
            ("warning", "classes that differ in capital letters only; they are several", cases),
        )
        if items
    ]
    return list(lines.values()), problems


def _roles(row: Row, numbers: Mapping[str, int]) -> tuple[dict[int, str], list[str]]:
    """Split -> role of the splits that use the line, and the values that name none."""
    values = {number: row.values[column] for column, number in numbers.items()}
    roles = {number: _ROLES.get(value.lower(), "") for number, value in values.items() if value}
    return roles, [values[number] for number, role in roles.items() if not role]


def _split(lines: Sequence[_Line], number: int) -> Split:
    train, validation, test = (
        tuple(line.path for line in lines if line.roles.get(number) == role) for role in ("train", "validation", "test")
    )
    return Split(train, test, validation)


def _is_missing(path: Path) -> bool:
    """Whether there is no file of the name. One in a folder that must not be searched may be there: who looks at it
    says what is in the way."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return True
    except OSError:
        return False
    return False


def _as_written_on_disk(path: Path) -> Path:
    """macOS writes names in decomposed form, most lists are written in composed form."""
    forms = (path, *(Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")))
    return next((form for form in forms if os.path.exists(form)), path)


def clip_names(class_of: Mapping[str, str]) -> dict[str, str]:
    """A name for every clip, unique in its class, which does not depend on the order of the list.

    Args:
        class_of: path, POSIX, of each clip -> its class.
    """
    parts = {path: [*PurePosixPath(path).parts[:-1], PurePosixPath(path).stem] for path in class_of}
    used = dict.fromkeys(class_of, 1)
    while True:
        names = {path: unicode_form("-".join(parts[path][-count:])) for path, count in used.items()}
        count = Counter((class_of[path], name) for path, name in names.items())
        shared = [path for path, name in names.items() if count[class_of[path], name] > 1]
        longer = [path for path in shared if used[path] < len(parts[path])]
        if not longer:
            break
        used |= {path: used[path] + 1 for path in longer}
    # Files of one folder that differ in their endings, or folders a-b/c and a/b-c.
    return names | {path: f"{names[path]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}" for path in shared}
