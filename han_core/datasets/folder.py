"""Any videos in class folders, ``root/<class>/<video>``, with groups by file name and splits by list, fold or fraction.

Labels follow the sorted names of the class folders.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from han_core.datasets.grouping import deal_groups, draw_groups
from han_core.datasets.listing import (
    JUNK,
    LINKS,
    ClassFolders,
    Listing,
    Problem,
    Split,
    Video,
    linked_inside,
    scan_class_folders,
    unicode_form,
)
from han_core.datasets.splitlists import available_lists, read_list, twice


@dataclass(frozen=True)
class FolderRules:
    """How groups and splits come about."""

    group_pattern: str | None = None
    """Regular expression searched in the file's stem; its first group, else the whole match, is the clip's group.
    None makes every clip a group of its own."""
    split_by: Literal["list", "fold", "fraction"] = "fraction"
    """``list``: trainlistNN.txt and testlistNN.txt; ``fold``: split i tests on the groups of fold i;
    ``fraction``: split i tests on ``test_share`` of the groups, drawn again for each i."""
    folds: int = 5
    test_share: float = 0.3
    annotations: Path | None = None
    """Folder of the lists; needed where ``split_by`` is ``list``."""


def list_folder(
    root: Path, rules: FolderRules, splits: Sequence[int], *, seed: int, expected: Collection[str] = ()
) -> Listing:
    """Look at the class folders and make the splits.

    Args:
        root: an existing folder of class folders.
        rules: how groups and splits come about.
        splits: numbers of the requested splits.
        seed: decides which groups a fold or a fraction takes.
        expected: names in ``root`` that are not class folders and need no mention.
    """
    if sides := split_folders(root):
        return _list_split_folders(root, sides, rules, splits)
    folders = scan_class_folders(root, expected)
    videos, problems = group_videos(folders, rules.group_pattern)
    available: tuple[int, ...] | None = None
    if rules.split_by == "list":
        found, available, faults = _splits_by_list(rules.annotations, splits, folders)
        problems += [*faults, *linked_inside(root, rules.annotations)]
        named = {path for split in found.values() for path in (*split.train, *split.test)}
        known = {video.path for video in videos}
        # A listed video that is not there still is a clip, so that the checks can say it is missing.
        videos = [v for v in videos if v.path in named]
        videos += [Video(path, unicode_form(path.split("/")[0]), path) for path in sorted(named - known)]
    else:
        found, available = draw_splits(videos, rules, splits, seed)
    return Listing(
        videos=tuple(videos),
        classes=tuple(sorted({video.class_name for video in videos})),
        splits=found,
        available=available,
        on_disk=folders.paths,
        # A list is its author's decision; folds and fractions are ours, and must keep groups whole.
        straddling="warning" if rules.split_by == "list" else "error",
        problems=tuple(problems),
    )


SIDES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Role -> names of the folders that hold it, in lower case, where data comes in folders of a split."""


def split_folders(root: Path) -> dict[str, Path]:
    """{role: folder} where a root holds a train and a test folder in place of classes, else nothing."""
    names = {name: role for role, names in SIDES.items() for name in names}
    entries = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in JUNK]
    found = {names[entry.name.lower()]: entry for entry in sorted(entries) if entry.name.lower() in names}
    return found if len(found) == len(entries) and {"train", "test"} <= set(found) else {}


def _list_split_folders(root: Path, sides: dict[str, Path], rules: FolderRules, splits: Sequence[int]) -> Listing:
    """``root/<train, val or test>/<class>/<video>``: split 1 as the folders say."""
    if links := tuple(folder.name for folder in sides.values() if folder.is_symlink()):
        return Listing((), (), {}, (1,), frozenset(), problems=(Problem("error", LINKS, links),))
    videos: list[Video] = []
    problems: list[Problem] = []
    paths: dict[str, tuple[str, ...]] = {}
    on_disk: set[str] = set()
    for role, folder in sides.items():
        folders = scan_class_folders(folder)
        # An empty class in one of the folders is no mistake: not every split tests every class.
        found, faults = group_videos(
            replace(folders, videos={n: p for n, p in folders.videos.items() if p}), rules.group_pattern
        )
        inside = [replace(video, path=f"{folder.name}/{video.path}") for video in found]
        if rules.group_pattern is None:
            inside = [replace(video, group=f"{video.class_name}/{video.name}") for video in inside]
        problems += faults
        videos += inside
        paths[role] = tuple(video.path for video in inside)
        on_disk |= {f"{folder.name}/{path}" for path in folders.paths}
    names = ", ".join(folder.name for folder in sides.values())
    problems.append(Problem("note", f"the folders {names} of {root} are read as split 1"))
    return Listing(
        videos=tuple(videos),
        classes=tuple(sorted({video.class_name for video in videos})),
        splits={n: Split(paths["train"], paths["test"], paths.get("validation", ())) for n in splits if n == 1},
        available=(1,),
        on_disk=frozenset(on_disk),
        straddling="warning",
        problems=tuple(problems),
    )


def group_videos(folders: ClassFolders, pattern: str | None) -> tuple[list[Video], list[Problem]]:
    """The videos with their groups, and what was wrong with folders, names or pattern."""
    problems = list(folders.problems)
    empty = tuple(name for name, paths in folders.videos.items() if not paths)
    if empty:
        problems.append(Problem("error", "class folders without a video; fill or remove them", empty))
    try:
        search = re.compile(pattern).search if pattern is not None else None
    except re.error as error:
        problems.append(Problem("error", f"group_pattern {pattern!r} is not a regular expression: {error}"))
        search = None
    videos, unmatched = [], []
    stems = Counter(unicode_form(Path(path).stem) for path in folders.paths)
    for class_name, paths in folders.videos.items():
        for path in paths:
            stem = unicode_form(Path(path).stem)
            match = search(stem) if search else None
            # Without a pattern a clip is a group of its own, and a clip is known by its class and stem.
            alone = stem if stems[stem] == 1 else f"{class_name}/{stem}"
            group = alone if match is None else match[1 if match.re.groups else 0]
            if search and not (match and group):
                unmatched.append(path)
            videos.append(Video(path, class_name, group or alone))
    if unmatched:
        problems.append(Problem("error", f"names in which group_pattern {pattern!r} finds no group", tuple(unmatched)))
    return videos, problems


def draw_splits(
    videos: Sequence[Video], rules: FolderRules, splits: Sequence[int], seed: int
) -> tuple[dict[int, Split], tuple[int, ...] | None]:
    """The splits of folds or fractions, and the numbers of all that there are; None where any number is one."""
    classes = classes_of_groups(videos)
    if rules.split_by == "fold":
        fold_of = deal_groups(classes, rules.folds, seed, "fold")
        available = range(1, rules.folds + 1)
        tested = {n: {group for group, fold in fold_of.items() if fold == n} for n in splits if n in available}
        return {n: split_videos(videos, groups) for n, groups in tested.items()}, tuple(available)
    share = rules.test_share
    return {n: split_videos(videos, draw_groups(classes, share, seed, "test", n)) for n in splits}, None


def classes_of_groups(videos: Sequence[Video]) -> dict[str, frozenset[str]]:
    """Group -> the classes of its clips."""
    found: dict[str, set[str]] = {}
    for video in videos:
        found.setdefault(video.group, set()).add(video.class_name)
    return {group: frozenset(classes) for group, classes in found.items()}


def split_videos(videos: Sequence[Video], test_groups: Collection[str]) -> Split:
    """The split that tests on these groups and trains on all others."""
    return Split(
        train=tuple(v.path for v in videos if v.group not in test_groups),
        test=tuple(v.path for v in videos if v.group in test_groups),
    )


def _splits_by_list(
    annotations: Path, splits: Sequence[int], folders: ClassFolders
) -> tuple[dict[int, Split], tuple[int, ...], list[Problem]]:
    available = available_lists(annotations)
    found, problems, repeated = {}, [], []
    for number in (n for n in splits if n in available):
        sides = {}
        for side, path in available[number].items():
            lines, faults = read_list(path)
            problems += faults
            repeated += twice(lines)
            sides[side] = tuple(dict.fromkeys(folders.resolve(line.path) for line in lines))
        found[number] = Split(sides["train"], sides["test"])
    if repeated:
        problems.append(Problem("warning", "lines that repeat an earlier one of the same file", tuple(repeated)))
    return found, tuple(available), problems
