"""Everything that can be wrong with a dataset, found in one go."""

from collections.abc import Iterable, Mapping, Sequence

from han_core.clips import unfit_name, unfit_path
from han_core.datasets.listing import Listing, Problem, Severity, Video
from han_core.datasets.probing import Inspection

_SECONDS_A_PIXEL = 1 / (20 * 340 * 256)
"""TV-L1 on one core: 20 pairs of 340x256 in a second (docs/results.md)."""
_LONG = 1.0
"""Hours of flow that are worth a hint."""
_LARGE, _USUAL = 360, 256
"""Pixels of the shorter side: above the first there is something to gain, the second is usual in the field."""


_TAKEN = frozenset({"contents.csv", "failures.csv"})
"""Files that stages write beside the folders of the classes."""


def check_listing(listing: Listing, requested: Sequence[int]) -> list[Problem]:
    """What is wrong with names, lists and splits; the problems met while reading come first."""
    problems = list(listing.problems)
    problems += _check_available(listing, requested)
    if not listing.videos and not any(problem.severity == "error" for problem in problems):
        problems.append(Problem("error", "no clip: the class folders or the split files are empty"))
    classes = {video.class_name for video in listing.videos}
    if len(classes) == 1:
        only = f"only one class, {next(iter(classes))}, so there is nothing to tell apart; give each class its folder"
        problems.append(Problem("error", only))
    problems += _check_files(listing)
    problems += _check_names(listing)
    problems += _check_stems(listing)
    for number in listing.splits:
        problems += _check_split(listing, number)
    return problems


def check_inspections(listing: Listing, inspections: Mapping[str, Inspection], allowed_failures: int) -> list[Problem]:
    """Videos that cannot be used (an error if there are more than ``allowed_failures``, else a warning), damage, the
    same bytes twice, and what else a person might want to know."""
    return [
        *_check_unusable(inspections, allowed_failures),
        *_check_damage(inspections),
        *_check_duplicates(listing, inspections),
        *_notes(inspections),
    ]


def check_lengths(inspections: Mapping[str, Inspection], frames: int, stack: int) -> Iterable[Problem]:
    """Warnings of clips that are shorter than what is taken of each.

    Args:
        frames: T, that a model looks at.
        stack: L, flow fields in one input of the temporal net.
    """
    lengths = {path: found.frames for path, found in sorted(inspections.items()) if found.frames}
    for fewer, what in (
        (frames, "cubes.frames asks for, so some are taken twice"),
        (stack + 1, f"stack: {stack} needs, so flow fields are repeated"),
    ):
        title = f"videos of fewer than the {fewer} frames that {what}"
        yield from _problem("warning", title, (f"{path}: {n} frames" for path, n in lengths.items() if n < fewer))


def _check_unusable(inspections: Mapping[str, Inspection], allowed_failures: int) -> Iterable[Problem]:
    failed = [f"{path}: {found.problem}" for path, found in sorted(inspections.items()) if found.problem]
    if len(failed) > allowed_failures:
        title = f"videos that cannot be used; replace them, or allow {len(failed)} in dataset.allowed_failures"
        yield Problem("error", title, tuple(failed))
    elif failed:
        title = f"videos that cannot be used, within the {allowed_failures} that dataset.allowed_failures allows"
        yield Problem("warning", title, tuple(failed))


def _check_damage(inspections: Mapping[str, Inspection]) -> Iterable[Problem]:
    damaged = (f"{path}: {found.damage}" for path, found in inspections.items() if found.damage)
    title = "videos with damaged pictures, within decode.damaged_share; what can be decoded is used"
    yield from _problem("warning", title, damaged)


def _check_duplicates(listing: Listing, inspections: Mapping[str, Inspection]) -> Iterable[Problem]:
    """The same bytes in two classes, or on both sides of a split, spoil every figure; within a class they only cost."""
    class_of = {video.path: video.class_name for video in listing.videos}
    copies: dict[str, list[str]] = {}
    for path, found in sorted(inspections.items()):
        if found.sha256 and path in class_of:
            copies.setdefault(found.sha256, []).append(path)
    repeated = [paths for paths in copies.values() if len(paths) > 1]
    classes, sides, within = [], [], []
    for paths in repeated:
        text = " and ".join(paths)
        across = [
            number
            for number, split in listing.splits.items()
            if sum(not set(paths).isdisjoint(side) for side in (split.train, split.validation, split.test)) > 1
        ]
        if len({class_of[path] for path in paths}) > 1:
            classes.append(text)
        elif across:
            sides.append(f"{text} (split {', '.join(map(str, across))})")
        else:
            within.append(text)
    yield from _problem("error", "videos of two classes with the same bytes", classes)
    yield from _problem("error", "videos with the same bytes on two sides of a split", sides)
    yield from _problem("warning", "videos of one class with the same bytes", within)


def _notes(inspections: Mapping[str, Inspection]) -> Iterable[Problem]:
    known = {path: found.info for path, found in sorted(inspections.items()) if found.info}
    uneven = [path for path, info in known.items() if not info.even]
    title = "videos whose frames are not shown equally long; frames are taken by their number, seconds by time stamps"
    yield from _problem("note", title, uneven)
    noted = (f"{path}: {note}" for path, info in known.items() for note in info.notes)
    yield from _problem("note", "videos that may not be what they seem", noted)


def flow_cost(inspections: Mapping[str, Inspection], short_side: int | None, workers: int) -> list[Problem]:
    """A hint where TV-L1 at the frames' own size takes long; none where ``short_side`` bounds it.

    Args:
        workers: processes that compute flow.
    """
    work = largest = 0.0
    for found in inspections.values():
        if found.info:
            side = min(found.info.width, found.info.height)
            scale = min(1.0, short_side / side) if short_side else 1.0
            work += found.info.packets * found.info.width * found.info.height * scale**2
            largest = max(largest, side * scale)
    hours = work * _SECONDS_A_PIXEL / 3600 / workers
    if hours < _LONG or largest <= _LARGE:
        return []
    smaller = hours * (_USUAL / largest) ** 2
    return [
        Problem(
            "note",
            f"frames of up to {largest:.0f} pixels on the shorter side: flow will take about {hours:.0f} h on "
            f"{workers} cores; with decode.short_side: {_USUAL} about {max(smaller, 0.1):.1f} h",
        )
    ]


def _check_available(listing: Listing, requested: Sequence[int]) -> Iterable[Problem]:
    if listing.available is None:
        return
    absent = [str(number) for number in requested if number not in listing.available]
    if absent:
        known = ", ".join(map(str, listing.available)) or "none"
        yield Problem("error", f"splits that are not available; there are: {known}", tuple(absent))


def _check_files(listing: Listing) -> Iterable[Problem]:
    named = {video.path for video in listing.videos}
    missing = (_placed(video) for video in listing.videos if video.path not in listing.on_disk)
    yield from _problem("error", "videos that the split files name and that are missing", missing)
    yield from _problem(
        "warning", "videos that no requested split mentions; they are not used", listing.on_disk - named
    )
    odd = {path for path in named if not _is_text(path)}
    yield from _problem("error", "file names that are not UTF-8; rename them", (ascii(path) for path in odd))


def _check_names(listing: Listing) -> Iterable[Problem]:
    """Names become those of files of the project, so they must not lead out of it."""
    faults = {_placed(video): _unfit(video) for video in listing.videos if _is_text(video.path)}
    yield from _problem(
        "error",
        "names that no clip or class can have; rename the files or their folders",
        (f"{place}: {fault}" for place, fault in faults.items() if fault),
    )


def _placed(video: Video) -> str:
    """The video, after the line of the list that names it."""
    return f"{video.where}: {video.path}" if video.where else video.path


def _unfit(video: Video) -> str:
    for what, fault in (
        ("the class name", unfit_name(video.class_name) or _taken(video.class_name)),
        ("the name", unfit_name(video.name)),
        ("the path", unfit_path(video.path)),
    ):
        if fault:
            return f"{what} {fault}"
    return ""


def _taken(class_name: str) -> str:
    """Why a folder of a class would be in the way in the folders that stages write; "" if it would not."""
    if class_name.casefold() in _TAKEN:  # some file systems do not tell capital letters
        return "is that of a file that stages write beside the folders of the classes"
    return "begins with a dot, as hidden folders do" if class_name.startswith(".") else ""


def _check_stems(listing: Listing) -> Iterable[Problem]:
    paths: dict[tuple[str, str], list[str]] = {}
    for video in listing.videos:
        paths.setdefault((video.class_name, video.name), []).append(video.path)
    title = "file stems that occur twice in a class; a clip is known by its class and stem, so rename one"
    yield from _problem("error", title, (" and ".join(sorted(p)) for p in paths.values() if len(p) > 1))


def _check_split(listing: Listing, number: int) -> Iterable[Problem]:
    split = listing.splits[number]
    for side, paths in (("train", split.train), ("test", split.test)):
        if not paths:
            yield Problem("error", f"split {number} has no {side} clip")
    yield from _problem(
        "error", f"clips that split {number} has in both train and test", set(split.train) & set(split.test)
    )
    video = {v.path: v for v in listing.videos}
    groups: dict[str, dict[str, str]] = {}
    """Side -> group -> line of the list that names its first clip there."""
    for side, paths in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        groups[side] = {video[path].group: video[path].where for path in reversed(paths)}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        both = sorted(groups[one].keys() & groups[other].keys())
        lines = ((group, groups[one][group], groups[other][group]) for group in both)
        yield from _problem(
            listing.straddling,
            f"groups of split {number} with clips in both {one} and {other}",
            (f"{group} (e.g. {first} and {second})" if first else group for group, first, second in lines),
        )
    classes = {
        side: {video[path].class_name for path in paths}
        for side, paths in (("train", split.train), ("test", split.test))
    }
    if split.train and split.test:
        yield from _problem(
            "error",
            f"classes that split {number} tests and has no train clip of",
            classes["test"] - classes["train"],
        )
        yield from _problem(
            "warning", f"classes that split {number} has no test clip of", classes["train"] - classes["test"]
        )


def _problem(severity: Severity, title: str, items: Iterable[str]) -> Iterable[Problem]:
    items = tuple(sorted(items))
    if items:
        yield Problem(severity, title, items)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
