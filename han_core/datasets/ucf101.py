"""UCF-101 (Soomro, Zamir, Shah 2012): 101 class folders of AVI files and three official splits.

Quirks of the official files, all handled here: ``classInd.txt`` counts from 1; train lists carry that label, test lists
do not; the class is the FOLDER, because folder ``HandstandPushups`` holds files named ``v_HandStandPushups_*``. The
group is ``gNN`` in ``v_<class>_gNN_cMM.avi``; the protocol forbids that it straddles train and test.

A subset of the classes or clips works: classes keep their official order and are labelled 0, 1, .. without gaps.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from han_core.datasets.listing import Listing, Problem, Split, Video, linked_inside, scan_class_folders
from han_core.datasets.splitlists import Line, available_lists, read_lines, read_list, twice

_GROUP = re.compile(r"_(g\d+)_c\d+$")
_CLASS_LINE = re.compile(r"(\d+)\s+(\S.*)")


def list_ucf101(root: Path, annotations: Path, splits: Sequence[int]) -> Listing:
    """Read the official lists and look at what is on disk.

    Args:
        root: the folder of the class folders (``UCF-101``).
        annotations: the folder of the lists (``ucfTrainTestlist``).
        splits: numbers of the requested splits.
    """
    on_disk = scan_class_folders(root)
    problems = [*on_disk.problems, *linked_inside(root, annotations)]
    numbers, faults = _read_class_index(annotations / "classInd.txt")
    problems += faults
    available = available_lists(annotations)
    found: dict[int, Split] = {}
    used: dict[str, Line] = {}
    wrong_class, wrong_label, repeated = [], [], []
    for number in (n for n in splits if n in available):
        sides = {}
        for side, path in available[number].items():
            lines, faults = read_list(path)
            lines = [replace(line, path=on_disk.resolve(line.path)) for line in lines]
            problems += faults
            repeated += twice(lines)
            for line in lines:
                if numbers and line.class_name not in numbers:
                    wrong_class.append(f"{line.where}: {line.class_name}")
                elif numbers and line.label not in (None, numbers[line.class_name]):
                    wrong_label.append(f"{line.where}: {line.path} has {line.label}, not {numbers[line.class_name]}")
                used.setdefault(line.path, line)
            sides[side] = tuple(dict.fromkeys(line.path for line in lines))
        found[number] = Split(sides["train"], sides["test"])
    videos, ungrouped = [], []
    for line in used.values():
        match = _GROUP.search(Path(line.path).stem)
        if match is None:
            ungrouped.append(line.path)
        videos.append(Video(line.path, line.class_name, match[1] if match else Path(line.path).stem))
    for title, items in (
        ("classes of a split file that classInd.txt does not list", wrong_class),
        ("labels of a split file that are not those of classInd.txt", wrong_label),
        ("names without a group; expected v_<class>_gNN_cMM.avi", ungrouped),
    ):
        if items:
            problems.append(Problem("error", title, tuple(items)))
    if repeated:
        problems.append(Problem("warning", "lines that repeat an earlier one of the same file", tuple(repeated)))
    present = {video.class_name for video in videos}
    unused = [name for name in numbers if name not in present]
    if unused and videos:
        problems.append(Problem("note", "classes of classInd.txt without a clip in these splits", tuple(unused)))
    ordered = sorted(present, key=lambda name: (numbers.get(name, len(numbers) + 1), name))
    return Listing(
        videos=tuple(videos),
        classes=tuple(ordered),
        splits=found,
        available=tuple(available),
        on_disk=on_disk.paths,
        problems=tuple(problems),
    )


def _read_class_index(path: Path) -> tuple[dict[str, int], list[Problem]]:
    """Class -> official number, in the order of the numbers."""
    if not path.is_file():
        return {}, [Problem("error", f"{path} is missing; it comes with the official split files")]
    numbers: dict[str, int] = {}
    bad = []
    for line, text in read_lines(path):
        match = _CLASS_LINE.fullmatch(text)
        if match is None or match[2] in numbers or int(match[1]) in numbers.values():
            bad.append(f"line {line}: {text}")
        else:
            numbers[match[2]] = int(match[1])
    problems = [Problem("error", f"{path}: lines that are not a new `<number> <class>`", tuple(bad))] if bad else []
    return dict(sorted(numbers.items(), key=lambda item: item[1])), problems
