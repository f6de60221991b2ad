"""Everything that can be wrong with a dataset, found in one go."""

from collections.abc import Iterable, Mapping, Sequence

from han_core.datasets.listing import Listing, Problem, Severity
from han_core.datasets.probing import Inspection


def check_listing(listing: Listing, requested: Sequence[int]) -> list[Problem]:
    """What is wrong with names, lists and splits; the problems met while reading come first."""
    problems = list(listing.problems)
    problems += _check_available(listing, requested)
    if not listing.videos:
        problems.append(Problem("error", "no clip: the class folders or the split files are empty"))
    problems += _check_files(listing)
    problems += _check_stems(listing)
    for number in listing.splits:
        problems += _check_split(listing, number)
    return problems


def check_inspections(inspections: Mapping[str, Inspection], allowed_failures: int) -> list[Problem]:
    """Videos that cannot be read: an error if there are more than ``allowed_failures``, else a warning."""
    failed = [f"{path}: {found.problem}" for path, found in sorted(inspections.items()) if found.problem]
    if not failed:
        return []
    if len(failed) > allowed_failures:
        title = f"videos that cannot be read; replace them, or allow {len(failed)} in dataset.allowed_failures"
        return [Problem("error", title, tuple(failed))]
    title = f"videos that cannot be read, within the {allowed_failures} that dataset.allowed_failures allows"
    return [Problem("warning", title, tuple(failed))]


def _check_available(listing: Listing, requested: Sequence[int]) -> Iterable[Problem]:
    if listing.available is None:
        return
    absent = [str(number) for number in requested if number not in listing.available]
    if absent:
        known = ", ".join(map(str, listing.available)) or "none"
        yield Problem("error", f"splits that are not available; there are: {known}", tuple(absent))


def _check_files(listing: Listing) -> Iterable[Problem]:
    named = {video.path for video in listing.videos}
    yield from _problem("error", "videos that the split files name and that are missing", named - listing.on_disk)
    yield from _problem(
        "warning", "videos that no requested split mentions; they are not used", listing.on_disk - named
    )
    odd = {path for path in named if not _is_text(path)}
    yield from _problem("error", "file names that are not UTF-8; rename them", (ascii(path) for path in odd))


def _check_stems(listing: Listing) -> Iterable[Problem]:
    paths: dict[str, list[str]] = {}
    for video in listing.videos:
        paths.setdefault(video.name, []).append(video.path)
    title = "file stems that occur twice; a clip is known by its stem, so rename one"
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
    groups = {
        side: {video[path].group for path in paths} for side, paths in (("train", split.train), ("test", split.test))
    }
    yield from _problem(
        listing.straddling,
        f"groups of split {number} with clips in both train and test",
        groups["train"] & groups["test"],
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
