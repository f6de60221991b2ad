"""UT-Interaction (Ryoo, Aggarwal 2010), segmented clips: ``<number>_<class>/<n>_<sequence>_<number>.avi``.

The group is the sequence, one filmed take of several interactions. Split i leaves sequence i out: it tests on
sequence i and trains on the others, the protocol of the data. Set 1 has sequences 1 to 10, set 2 sequences 11 to 20.

A class is named by its folder without the number, ``handshake`` for ``0_handshake``; labels follow the numbers.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from han_core.datasets.folder import split_videos
from han_core.datasets.listing import Listing, Problem, Video, scan_class_folders

_FOLDER = re.compile(r"(\d+)_(.+)")
_FILE = re.compile(r"(\d+)_(\d+)_(\d+)")


def list_ut_interaction(root: Path, splits: Sequence[int]) -> Listing:
    """Look at the class folders of one set and make one split a sequence.

    Args:
        root: the folder of the class folders (``set1``).
        splits: numbers of the sequences to leave out, one per split.
    """
    folders = scan_class_folders(root)
    problems = list(folders.problems)
    numbers: dict[str, int] = {}
    videos, odd_folders, odd_files = [], [], []
    for folder, paths in folders.videos.items():
        match = _FOLDER.fullmatch(folder)
        if match is None or match[2] in numbers:
            odd_folders.append(folder)
            continue
        number, class_name = int(match[1]), match[2]
        numbers[class_name] = number
        for path in paths:
            parts = _FILE.fullmatch(Path(path).stem)
            if parts is None or int(parts[3]) != number:
                odd_files.append(path)
            else:
                videos.append(Video(path, class_name, f"sequence_{int(parts[2]):02d}"))
    for title, items in (
        ("folders that are not a new <number>_<class>", odd_folders),
        ("class folders without a video; fill or remove them", [n for n, p in folders.videos.items() if not p]),
        ("names that are not <n>_<sequence>_<the folder's number>", odd_files),
    ):
        if items:
            problems.append(Problem("error", title, tuple(items)))
    available = tuple(sorted({int(video.group.removeprefix("sequence_")) for video in videos}))
    used = {video.class_name for video in videos}
    return Listing(
        videos=tuple(videos),
        classes=tuple(sorted(used, key=numbers.__getitem__)),
        splits={n: split_videos(videos, {f"sequence_{n:02d}"}) for n in splits if n in available},
        available=available,
        on_disk=folders.paths,
        problems=tuple(problems),
    )
