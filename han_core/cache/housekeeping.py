"""What the cache holds, whether it is sound, and what is no longer needed."""

import logging
import os
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from han_core.cache.store import ClipCache
from han_core.cache.verify import claimed_checksum, problems, sha256_of, verify_clip_file
from han_core.cache.workspace import Workspace, md5_of
from han_core.clipfile.trailer import ClipFileError
from han_core.errors import HanError
from han_core.tensorfile.file import TensorFileError, read_tensors

log = logging.getLogger(__name__)

KINDS = (
    "frames",
    "flow",
    "cubes",
    "shard",
    "scores",
    "trajectories",
    "fisher",
    "tdd_samples",
    "codebooks",
    "nets",
    "inner-scores",
)
"""Of the files that the project caches. A cache that has none of a kind has no folder of it either."""

_NAME = re.compile(r"[0-9a-f]{64}(?:-\w+)?\..+")


class UnknownKind(HanError, ValueError):
    """No file can be of a kind that was asked for; the message says which kinds there are."""


@dataclass(frozen=True)
class Entry:
    """One finished file of the cache."""

    kind: str
    fingerprint: str
    path: Path
    size: int
    """Bytes."""
    links: int
    """Names that the file has on disk, the cache's own included."""
    age: float
    """Seconds since it was made, or was last linked or unlinked somewhere."""


@dataclass(frozen=True)
class Prunable:
    """What a prune may delete."""

    entries: tuple[Entry, ...]
    temporaries: tuple[Path, ...]
    """Files that were never finished: temporaries, and checkpoints that were not touched for a week."""

    @property
    def size(self) -> int:
        """Bytes that deleting would free."""
        return sum(entry.size for entry in self.entries) + sum(_size(path) for path in self.temporaries)


def entries(cache: ClipCache, kinds: Iterable[str] = ()) -> Iterator[Entry]:
    """All finished files, or those of some kinds, in a fixed order. What is not named as the cache names files is left
    out: it is nothing of the cache's.

    Raises:
        UnknownKind: the cache has none of a kind, and could have none.
    """
    wanted = set(kinds)
    folders = sorted(cache.root.glob("*/[0-9a-f][0-9a-f]"))
    _check_kinds(wanted, {folder.parent.name for folder in folders})
    for folder in folders:
        if wanted and folder.parent.name not in wanted:
            continue
        for path in _finished_in(folder):
            try:
                status = path.stat()
            except FileNotFoundError:  # pruned by someone else meanwhile
                continue
            kind, name = folder.parent.name, path.name.split(".")[0]
            age = time.time() - status.st_ctime
            yield Entry(kind, name, path, status.st_size, status.st_nlink, age)


def is_cache(root: Path) -> bool:
    """Whether a folder is a cache, or empty and may become one."""
    own = any((root / name).is_dir() for name in ("tmp", "checkpoints"))
    return own or not any(root.iterdir()) or any(entries(ClipCache(root)))


def _check_kinds(wanted: Iterable[str], there: Iterable[str]) -> None:
    known = dict.fromkeys((*KINDS, *sorted(there)))
    if unknown := sorted(set(wanted) - known.keys()):
        raise UnknownKind(f"{', '.join(unknown)}: no kind of file that a cache has; there are {', '.join(known)}")


def _finished_in(folder: Path) -> list[Path]:
    """The files of one of a kind's folders, ``<kind>/<aa>``, sorted."""
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # gone meanwhile, or a file that is called so
        return []
    return [path for path in paths if path.name.startswith(folder.name) and _NAME.fullmatch(path.name)]


def verify_entries(
    cache: ClipCache, kinds: Iterable[str] = (), *, workers: int = 1, advance: Callable[[], object] = lambda: None
) -> list[tuple[Entry, str]]:
    """Recompute every checksum of all entries, or of those of some kinds.

    Args:
        workers: processes that read in parallel.
        advance: called after each entry.

    Returns:
        The bad entries, each with what is wrong.

    Raises:
        UnknownKind: the cache has none of a kind, and could have none.
    """
    found = list(entries(cache, kinds))
    bad = []
    for entry, problem in zip(found, problems([entry.path for entry in found], workers=max(1, workers)), strict=True):
        if problem:
            bad.append((entry, problem))
        advance()
    return bad


@dataclass(frozen=True)
class Damaged:
    """A file whose bytes are not those that it was made with."""

    path: Path
    problem: str


def verify_workspace(
    workspace: Workspace, verified: Iterable[Path] = (), *, advance: Callable[[], object] = lambda: None
) -> list[Damaged]:
    """Recompute the checksums of what a workspace holds beside the cache's own files: DVC's cache, and outputs.

    Args:
        verified: files that were looked at; other names (hard links) of them are not read again.
        advance: called after each file.
    """
    known = {_inode(path) for path in verified}
    bad = []
    for path, problem in (*_bad_objects(workspace, known, advance), *_bad_outputs(workspace, known, advance)):
        bad.append(Damaged(path, problem))
    return bad


def names_of(paths: Iterable[Path], folders: Iterable[str | Path] = ()) -> list[Path]:
    """Files, and their other names (hard links) below some folders."""
    found = {path.resolve(): path for path in paths if path.exists()}
    shared = {_inode(path) for path in found.values() if path.stat().st_nlink > 1}
    for folder in folders if shared else ():
        for path in _linked(shared, Path(folder)):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def remove(paths: Iterable[Path]) -> None:
    """Delete files."""
    for path in paths:
        path.unlink(missing_ok=True)


YOUNG = 3600.0
"""Seconds; what is younger may belong to a stage that runs, which has not linked it yet."""


def prunable(cache: ClipCache, workspaces: Iterable[str | Path], *, older_than: float = YOUNG) -> Prunable:
    """What no output refers to.

    An entry is in use if it has a second name on disk (a hard link of a workspace or of DVC's cache), or if a file
    under ``data`` or ``models`` of one of the workspaces has its content: workspaces on another disk hold copies. With
    it is in use what has its kind and fingerprint (the record of a net's curve has no other name). A temporary is left
    over if its process is gone or, for one of another machine, if it was not touched for a day.

    Args:
        workspaces: project folders that use this cache. Those not named here are known only by their hard links.
        older_than: seconds; younger entries are kept.
    """
    known = list(entries(cache))
    lonely = [entry for entry in known if entry.links == 1]
    copied = _used_in(workspaces, lonely)
    used = {(entry.kind, entry.fingerprint) for entry in known if entry.links > 1 or _claimed(entry) in copied}
    unused = (entry for entry in lonely if (entry.kind, entry.fingerprint) not in used)
    unused_entries = tuple(entry for entry in unused if entry.age >= older_than)
    abandoned = (p for p in sorted((cache.root / "checkpoints").glob("*")) if _is_abandoned(p))
    return Prunable(unused_entries, (*cache.left_over(), *abandoned))


def prune(found: Prunable) -> None:
    """Delete what :func:`prunable` found."""
    remove((*(entry.path for entry in found.entries), *found.temporaries))


_ABANDONED_AFTER = 7 * 24 * 3600  # seconds; a training run that was not resumed for so long will not be


def _linked(inodes: Container[tuple[int, int]], folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink() and _inode(path) in inodes:
                yield path


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # gone meanwhile
        return 0, 0
    return status.st_dev, status.st_ino


def _bad_objects(
    workspace: Workspace, known: set[tuple[int, int]], advance: Callable[[], object]
) -> Iterator[tuple[Path, str]]:
    for path, md5 in workspace.objects():
        if (inode := _inode(path)) in known:
            continue
        known.add(inode)
        if md5_of(path) != md5:
            yield path, f"{path}: does not have the checksum in its name"
        advance()


def _bad_outputs(
    workspace: Workspace, known: set[tuple[int, int]], advance: Callable[[], object]
) -> Iterator[tuple[Path, str]]:
    """Those that are no links to DVC's cache or to this one, as far as they carry a checksum of their own."""
    for path in workspace.files():
        if _inode(path) in known or path.suffix not in (".h5", ".safetensors"):
            continue
        try:
            if path.suffix == ".h5":
                verify_clip_file(path)
            else:
                read_tensors(path, sealed=False)
        except (ClipFileError, TensorFileError) as error:
            yield path, str(error)
        advance()


def _used_in(workspaces: Iterable[str | Path], entries: Iterable[Entry]) -> set[str]:
    """Checksums of those entries that some workspaces hold copies of."""
    sizes = {(entry.path.suffix, entry.size) for entry in entries}
    used = set()
    for workspace in workspaces:
        for folder in ("data", "models"):
            for path in (Path(workspace) / folder).rglob("*"):
                if (path.suffix, _size(path)) not in sizes or not path.is_file():
                    continue
                try:
                    used.add(claimed_checksum(path) if path.suffix == ".h5" else sha256_of(path))
                except ClipFileError as error:
                    log.warning("not counted as in use: %s", error)
    return used


def _claimed(entry: Entry) -> str:
    try:
        return claimed_checksum(entry.path)
    except ClipFileError:  # damaged, and nobody's copy then
        return ""


def _is_abandoned(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _ABANDONED_AFTER
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
