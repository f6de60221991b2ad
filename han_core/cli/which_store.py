"""Is a folder one store of clip files, and if not, which folders in it are?"""

from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.cubes.folder import SHARDS, shard_files
from han_core.cubes.shard import KIND
from han_core.errors import HanError

_MOST_FOLDERS = 2000
"""Looked into for stores. A dataset has fewer, and nobody waits long for a message where the home folder was named."""

_SHOWN = 12


class NotAStore(HanError, ValueError):
    """A folder is not a store of clip files; the message says which folders in it are."""


def is_store(folder: Path) -> bool:
    """Whether a folder holds clip files, ``<class>/<clip>.h5``, or shards of them."""
    own = next(folder.glob("*/*.h5"), None)
    if own is not None and not (own.parent.name == SHARDS and _kind(own) == KIND):  # else it is a class of a store
        return True
    return any(_kind(path) in (KIND, None) for path in shard_files(folder))


def require_store(folder: Path) -> None:
    """
    Raises:
        NotAStore: a folder is none.
    """
    if is_store(folder):
        return
    found = stores_in(folder)
    if not found:
        raise NotAStore(f"{folder}: holds no <class>/<clip>.h5 files; is it a folder of clip files?")
    names = ", ".join(map(str, found[:_SHOWN])) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    raise NotAStore(f"{folder}: is not one store of clip files; name one of those in it: {names}")


def stores_in(folder: Path) -> list[Path]:
    """The stores below a folder, sorted; of one that is larger than any dataset, those nearest to it. Hidden folders
    and links are not looked into."""
    found, waiting = [], deque([folder])
    for _ in range(_MOST_FOLDERS):
        if not waiting:
            break
        here = waiting.popleft()
        if here != folder and is_store(here):
            found.append(here)
            continue
        with suppress(OSError):  # not ours to read, or gone meanwhile
            waiting += [path for path in sorted(here.iterdir()) if _may_hold_stores(path)]
    return sorted(found)


def kind_of(paths: Iterable[Path]) -> str:
    """The kind that most clip files are of, a shard counting as cubes; "cubes" where none can be read."""
    counts = Counter(kind for path in paths if (kind := _kind(path)) is not None)
    counts["cubes"] += counts.pop(KIND, 0)
    return max(counts, key=lambda kind: (counts[kind], kind == "cubes"))


def is_in_shards_place(path: Path, folder: Path) -> bool:
    """Whether a file of a store lies where its shards do. The name of the folder it lies in does not tell, for a class
    may be called so."""
    return path.relative_to(folder).parts[1:-1] == (SHARDS,)


def _may_hold_stores(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir() and not path.is_symlink()


def _kind(path: Path) -> str | None:
    """The kind that a file says it is of. The folder does not tell: ``flow/shards/<clip>.h5`` of a dataset is a clip of
    class ``shards``. None of a damaged one: whoever reads it says so."""
    try:
        return read_trailer(path).kind
    except (ClipFileError, OSError):
        return None
