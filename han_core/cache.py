"""The content-addressed cache of finished files: every clip file (and every fine-tuned net) is made once.

A file is known by its fingerprint: a hash of what it was made from (stage, version, parameters, content of the
inputs). Layout below the root::

    <kind>/<aa>/<fingerprint>.h5                        clip files; aa: first two digits of the fingerprint
    <kind>/<aa>/<fingerprint>.<sha256>.safetensors      files of other formats carry their checksum in the name
    tmp/                                                files being written
    checkpoints/<fingerprint>.safetensors               last states of training runs that have not finished

Publishing is a rename (or a hard link) within one file system, so an entry is either absent or complete, whatever is
killed, and several people may fill one cache on a shared disk at once. Entries are read-only.

Entries are handed out as hard links: cache, DVC's own cache and the workspace share one copy on disk. The other
side of that coin is that whoever overwrites a linked file in place damages all of them; therefore nothing here ever
opens an existing file for writing, and links are made beside their destination and renamed over it.

What is checked when an entry is reused: by default the trailer of a clip file (its fingerprint, kind and length), one
read of 1 KiB, which finds truncated and mixed-up files; and the modification time. Publishing sets that to a time
computed from the content, so a file that was written to since, through any of its names, gives itself away and is
verified in full. With ``verify="content"`` every file is, which also finds bits that flipped on the disk, at the
price of reading everything (1 to 2 GB/s a core, or what the disk gives). An entry that fails is treated as absent, is
made anew and is replaced.
"""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, Self

from han_core.clipfile import ClipFileError, read_trailer, verify_clip_file

log = logging.getLogger(__name__)

_STALE_AFTER = 24 * 3600  # seconds; a temporary of another machine that was not touched for so long is left over
_ABANDONED_AFTER = 7 * 24 * 3600  # seconds; a training run that was not resumed for so long will not be
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}


def fingerprint(stage: str, version: int, parameters: Mapping, inputs: Mapping[str, str]) -> str:
    """Identity of what a stage makes, before it is made.

    Args:
        stage: its name.
        version: raised by hand whenever the bytes that the stage writes change for equal inputs.
        parameters: those that matter to the result and no others; anything JSON can hold.
        inputs: name of each input -> hash of its content (or its own fingerprint).

    Returns:
        64 hexadecimal digits: SHA-256 of the canonical JSON (sorted keys; 20 and 20.0 count as equal).
    """
    identity = {"stage": stage, "version": version, "parameters": dict(parameters), "inputs": dict(inputs)}
    text = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


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


class ClipCache:
    """A folder of finished files by fingerprint; see the module's text.

    Args:
        root: the folder; made when the first file is written.
        verify: what is checked before an entry is reused, ``size`` or ``content``.
    """

    def __init__(self, root: str | Path, *, verify: Literal["size", "content"] = "size") -> None:
        self.root = Path(root)
        self.verify_on_use = verify
        self._said_copying = False

    @classmethod
    def from_environment(cls, *, verify: Literal["size", "content"] = "size") -> Self:
        """The cache at ``$HAN_CACHE``, by default ``.han_cache`` in the current folder."""
        return cls(Path(os.environ.get("HAN_CACHE") or ".han_cache"), verify=verify)

    def find(self, kind: str, fingerprint: str, suffix: str = ".h5") -> Path | None:
        """The finished file, or None if there is none or it is damaged (which is logged)."""
        for path in self._candidates(kind, fingerprint, suffix):
            try:
                _check_identity(path, kind, fingerprint)
                if self.verify_on_use == "content" or path.stat().st_mtime_ns != _content_time(_checksum(path)):
                    verify_entry(path)
            except (ClipFileError, OSError) as error:
                log.warning("damaged cache entry, will be made anew: %s", error)
                continue
            return path
        return None

    @contextmanager
    def create(self, kind: str, fingerprint: str, suffix: str = ".h5") -> Iterator[Path]:
        """Write a file: yields a temporary path; a clean end of the block publishes it, an exception removes it.

        Publishing: flush to disk, verify (clip files), make read-only, rename. If someone else published the same
        fingerprint meanwhile, theirs is kept.

        Raises:
            ClipFileError: what was written does not verify, or is not of this kind and fingerprint.
        """
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{kind}-{fingerprint[:16]}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"
        temporary = folder / name
        try:
            yield temporary
            self._publish(temporary, kind, fingerprint, suffix)
        finally:
            temporary.unlink(missing_ok=True)

    def link(self, kind: str, fingerprint: str, destination: str | Path, suffix: str = ".h5") -> None:
        """Give a finished file the name ``destination``: a hard link, or a copy where the file system has none.

        An existing destination is replaced by rename, never written into. Its folder is made.

        Raises:
            FileNotFoundError: the cache has no such file.
        """
        source = self.find(kind, fingerprint, suffix)
        if source is None:
            raise FileNotFoundError(f"{self.root}: has no finished {kind} file {fingerprint}")
        destination = Path(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists() and not destination.is_symlink() and destination.samefile(source):
            return
        beside = destination.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            try:
                os.link(source, beside)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                self._say_copying(error)
                if _is_copy(source, destination):
                    return
                shutil.copyfile(source, beside)
                shutil.copystat(source, beside)
            os.replace(beside, destination)
        finally:
            beside.unlink(missing_ok=True)

    def entries(self, kinds: Iterable[str] = ()) -> Iterator[Entry]:
        """All finished files, or those of some kinds, in a fixed order."""
        wanted = set(kinds)
        for folder in sorted(self.root.glob("*/[0-9a-f][0-9a-f]")):
            if wanted and folder.parent.name not in wanted:
                continue
            for path in sorted(folder.iterdir()):
                try:
                    status = path.stat()
                except FileNotFoundError:  # pruned by someone else meanwhile
                    continue
                kind, name = folder.parent.name, path.name.split(".")[0]
                age = time.time() - status.st_ctime
                yield Entry(kind, name, path, status.st_size, status.st_nlink, age)

    def verify(
        self, kinds: Iterable[str] = (), *, workers: int = 1, advance: Callable[[], object] = lambda: None
    ) -> list[tuple[Entry, str]]:
        """Recompute every checksum of all entries, or of those of some kinds.

        Args:
            workers: processes that read in parallel.
            advance: called after each entry.

        Returns:
            The bad entries, each with what is wrong.
        """
        entries = list(self.entries(kinds))
        bad = []
        for entry, problem in zip(entries, _each(entries, max(1, workers)), strict=True):
            if problem:
                bad.append((entry, problem))
            advance()
        return bad

    def remove(self, entry: Entry, folders: Iterable[str | Path] = ()) -> list[Path]:
        """Delete an entry, and its other names (hard links) below some folders.

        Returns:
            What was deleted.
        """
        removed = [entry.path]
        if entry.links > 1:
            status = entry.path.stat()
            others = (path for folder in folders for path in _names_of(status, Path(folder)))
            removed += [path for path in others if path.resolve() != entry.path.resolve()]
        for path in removed:
            path.unlink(missing_ok=True)
        return removed

    def prunable(self, workspaces: Iterable[str | Path], *, older_than: float = 0.0) -> Prunable:
        """What no output refers to.

        An entry is in use if it has a second name on disk (a hard link of a workspace or of DVC's cache), or if a
        file under ``data`` or ``models`` of one of the workspaces has its fingerprint (clip files) or its content
        (others): workspaces on another disk hold copies. With it is in use what has its kind and fingerprint (the
        record of a net's curve has no other name). A temporary is left over if its process is gone or, for one of
        another machine, if it was not touched for a day.

        Args:
            workspaces: project folders that use this cache. Those not named here are known only by their hard links.
            older_than: seconds; younger entries are kept.
        """
        known = list(self.entries())
        lonely = [entry for entry in known if entry.links == 1]
        copied = _used_in(workspaces, lonely)
        used = {(entry.kind, entry.fingerprint) for entry in known if entry.links > 1 or _identity(entry) in copied}
        unused = (entry for entry in lonely if (entry.kind, entry.fingerprint) not in used)
        entries = tuple(entry for entry in unused if entry.age >= older_than)
        abandoned = (p for p in sorted((self.root / "checkpoints").glob("*")) if _is_abandoned(p))
        return Prunable(entries, (*self.left_over(), *abandoned))

    def checkpoint_path(self, fingerprint: str) -> Path:
        """Where the last state of the training run of this fingerprint is kept while it has not finished."""
        return self.root / "checkpoints" / f"{fingerprint}.safetensors"

    def left_over(self) -> tuple[Path, ...]:
        """Temporaries of processes that are gone (killed), or of other machines and untouched for a day."""
        return tuple(path for path in sorted((self.root / "tmp").glob("*")) if _is_left_over(path))

    def sweep(self) -> None:
        """Delete the temporaries that are left over; their owners will not come back for them."""
        for path in self.left_over():
            path.unlink(missing_ok=True)

    def prune(self, found: Prunable) -> None:
        """Delete what :meth:`prunable` found."""
        for entry in found.entries:
            self.remove(entry)
        for path in found.temporaries:
            path.unlink(missing_ok=True)

    def _candidates(self, kind: str, fingerprint: str, suffix: str) -> list[Path]:
        folder = self.root / kind / fingerprint[:2]
        if suffix == ".h5":
            path = folder / f"{fingerprint}.h5"
            return [path] if path.exists() else []
        return sorted(folder.glob(f"{fingerprint}.*{suffix}"))

    def _publish(self, temporary: Path, kind: str, fingerprint: str, suffix: str) -> None:
        if not temporary.exists():
            raise ClipFileError(f"{kind} file {fingerprint}: nothing was written")
        _flush(temporary)
        name = f"{fingerprint}{suffix}"
        if suffix == ".h5":
            _check_identity(temporary, kind, fingerprint)
            verify_clip_file(temporary)
            checksum = _checksum(temporary)
        else:
            checksum = _sha256(temporary)
            name = f"{fingerprint}.{checksum}{suffix}"
        temporary.chmod(0o444)
        stamp = _content_time(checksum)
        os.utime(temporary, ns=(stamp, stamp))
        folder = self.root / kind / fingerprint[:2]
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / name
        try:
            # A link, unlike a rename, refuses to replace: whoever is first stays, with all hard links to it.
            os.link(temporary, final)
        except FileExistsError:
            try:
                verify_entry(final)
            except (ClipFileError, OSError):
                os.replace(temporary, final)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            os.replace(temporary, final)
        _flush(folder)

    def _say_copying(self, error: OSError) -> None:
        if not self._said_copying:
            log.warning(
                "no hard links from %s to the outputs (%s): files are copied, which takes twice the disk. "
                "Put HAN_CACHE on the file system of the project to share one copy.",
                self.root,
                error.strerror,
            )
            self._said_copying = True


def verify_entry(path: Path) -> None:
    """Recompute the checksums of one entry.

    Raises:
        ClipFileError: it is damaged, or lies under another fingerprint or kind than its own.
    """
    if path.suffix == ".h5":
        _check_identity(path, path.parent.parent.name, path.name.split(".")[0])
        verify_clip_file(path)
    elif _sha256(path) != _checksum(path):
        raise ClipFileError(
            f"{path}: does not have the checksum in its name. It is damaged: remove it and make it anew."
        )


def _check_identity(path: Path, kind: str, fingerprint: str) -> None:
    if path.suffix != ".h5":
        if not path.stat().st_size:
            raise ClipFileError(f"{path}: is empty")
        return
    trailer = read_trailer(path)
    if (trailer.kind, trailer.fingerprint) != (kind, fingerprint):
        raise ClipFileError(
            f"{path}: holds the {trailer.kind} file {trailer.fingerprint} of clip {trailer.clip}, "
            f"not the {kind} file {fingerprint}"
        )


def _checksum(path: Path) -> str:
    """SHA-256 that a file claims to have: clip files in the trailer, others in their name."""
    return read_trailer(path).sha256 if path.suffix == ".h5" else path.name.split(".")[1]


def _content_time(checksum: str) -> int:
    """Modification time of a published file, in nanoseconds: between 2001 and 2010, to the microsecond.

    It must differ where the content differs, because DVC takes a file for unchanged when inode number (soon used
    again), size (padded, so often equal) and this time are.
    """
    seconds, microseconds = int(checksum[:7], 16), int(checksum[7:12], 16) % 1_000_000
    return (1_000_000_000 + seconds) * 1_000_000_000 + microseconds * 1000


def _problem(entry: Entry) -> str:
    try:
        verify_entry(entry.path)
    except (ClipFileError, OSError) as error:
        return str(error)
    return ""


def _each(entries: list[Entry], workers: int) -> Iterator[str]:
    if workers == 1 or len(entries) < 2 * workers:
        yield from map(_problem, entries)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_problem, entries, chunksize=16)


def _is_copy(source: Path, destination: Path) -> bool:
    if not destination.is_file():
        return False
    one, other = source.stat(), destination.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _names_of(status: os.stat_result, folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink() and os.path.samestat(path.stat(), status):
                yield path


def _used_in(workspaces: Iterable[str | Path], entries: Iterable[Entry]) -> set[str]:
    """Identities of those entries that some workspaces hold copies of."""
    sizes = {(entry.path.suffix, entry.size) for entry in entries}
    used = set()
    for workspace in workspaces:
        for folder in ("data", "models"):
            for path in (Path(workspace) / folder).rglob("*"):
                if (path.suffix, _size(path)) not in sizes or not path.is_file():
                    continue
                try:
                    used.add(read_trailer(path).fingerprint if path.suffix == ".h5" else _sha256(path))
                except ClipFileError as error:
                    log.warning("not counted as in use: %s", error)
    return used


def _identity(entry: Entry) -> str:
    return entry.fingerprint if entry.path.suffix == ".h5" else _checksum(entry.path)


def _is_left_over(path: Path) -> bool:
    try:
        machine, process = path.name.rsplit("-", 3)[-3:-1]
        quiet = time.time() - path.stat().st_mtime
    except (ValueError, FileNotFoundError):
        return False
    if machine == _machine() and process.isdigit():
        return not _is_alive(int(process))
    return quiet > _STALE_AFTER


def _is_abandoned(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _ABANDONED_AFTER
    return False


@cache
def _machine() -> str:
    """Eight digits for where process ids mean the same: host, boot and (in containers) id namespace."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with suppress(OSError):  # not Linux
            parts.append(read())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _canonical(value: object) -> object:
    """JSON values in one spelling: mappings with text keys, lists, and whole floats as integers."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _flush(path: Path) -> None:
    """Ask the kernel to put a file, or a folder's list of names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # folders on some network file systems
            raise
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
