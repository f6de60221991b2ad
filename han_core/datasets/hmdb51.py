"""HMDB-51 (Kuehne et al. 2011): 51 class folders of AVI files and three official splits.

``<class>_test_split<n>.txt`` gives each clip of a class a flag: 1 train, 2 test, 0 unused in that split. File names
hold ``#``, ``&``, ``;``, ``(``, ``[``, ``!`` and the like, and are taken as they are.

HMDB-51 has no official groups. The group here is the source film according to its name,
``<film>_<class>_<body>_<camera>_<people>_<view>_<quality>_<n>.avi``, else the clip itself. The official splits keep
clips of one film apart only in part, and the protocol does not forbid it: a film in both train and test is worth a
note, no error.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from han_core.datasets.listing import Listing, Problem, Split, Video, linked_inside, scan_class_folders
from han_core.datasets.splitlists import is_component, read_lines

_FILE_NAME = re.compile(r"(.+)_test_split([1-9]\d*)\.txt")
_FLAGGED = re.compile(r"(\S.*?)\s+([012])")
_TAGS = r"_{}_[a-z]_(?:cm|nm)_np\d+_(?:fr|le|ri|ba)_(?:goo|med|bad)_\d+"


def list_hmdb51(root: Path, annotations: Path, splits: Sequence[int]) -> Listing:
    """Read the official split files and look at what is on disk.

    Args:
        root: the folder of the class folders.
        annotations: the folder of the split files (``testTrainMulti_7030_splits``).
        splits: numbers of the requested splits.
    """
    on_disk = scan_class_folders(root)
    problems = [*on_disk.problems, *linked_inside(root, annotations)]
    files: dict[int, dict[str, Path]] = {}
    for path in sorted(annotations.iterdir()):
        if match := _FILE_NAME.fullmatch(path.name):
            files.setdefault(int(match[2]), {})[match[1]] = path
    classes = sorted({name for of_split in files.values() for name in of_split})
    found: dict[int, Split] = {}
    videos: dict[str, Video] = {}
    bad, absent, repeated = [], [], []
    unused: set[str] = set()
    for number in (n for n in splits if n in files):
        absent += [f"{name}_test_split{number}.txt" for name in classes if name not in files[number]]
        sides: dict[str, list[str]] = {"0": [], "1": [], "2": []}
        for class_name, path in files[number].items():
            seen: set[str] = set()
            for line, text in read_lines(path):
                match = _FLAGGED.fullmatch(text)
                if match is None or not is_component(match[1]):
                    bad.append(f"{path.name} line {line}: {text}")
                    continue
                video = on_disk.resolve(f"{class_name}/{match[1]}")
                if video in seen:
                    repeated.append(f"{path.name} line {line}: {match[1]}")
                seen.add(video)
                sides[match[2]].append(video)
                if match[2] != "0":
                    videos.setdefault(video, Video(video, class_name, film(match[1], class_name)))
        unused.update(sides["0"])
        found[number] = Split(tuple(sides["1"]), tuple(sides["2"]))
    for title, items in (
        ("lines of a split file that are not <video> <0, 1 or 2>", bad),
        ("split files that other splits have", absent),
        ("clips that one split file names twice", repeated),
    ):
        if items:
            problems.append(Problem("error", title, tuple(items)))
    used = {video.class_name for video in videos.values()}
    return Listing(
        videos=tuple(videos.values()),
        classes=tuple(name for name in classes if name in used),
        splits=found,
        available=tuple(sorted(files)),
        on_disk=on_disk.paths - (unused - set(videos)),
        straddling="note",
        problems=tuple(problems),
    )


def film(file_name: str, class_name: str) -> str:
    """The source film of a clip, e.g. ``April_09`` for ``April_09_brush_hair_u_nm_np1_ba_goo_0.avi``; else its stem."""
    stem = Path(file_name).stem
    match = re.fullmatch(f"(.+){_TAGS.format(re.escape(class_name))}", stem)
    return match[1] if match else stem
