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
recomputed and replaced.
"""

import errno
import hashlib
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal, Self

from han_core.cache.verify import check_identity, claimed_checksum, sha256_of, verify_clip_file, verify_entry
from han_core.clipfile.trailer import ClipFileError

log = logging.getLogger(__name__)

_STALE_AFTER = 24 * 3600  # seconds; a temporary of another machine that was not touched for so long is left over
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}


class ClipCache:
    """A folder of finished files by fingerprint; see the module's text.

    Args:
        root: the folder; made when the first file is written.
        verify: what is checked before an entry is reused, ``size`` or ``content``.

    Example:
        >>> from han_core.cache.fingerprint import fingerprint
        >>> from han_core.clipfile.writer import ClipFileWriter
        >>> import numpy
        >>> cache = ClipCache("cache")
        >>> key = fingerprint("demo", 1, {"quality": 95}, {"video": "sha256 of its bytes"})
        >>> with cache.create("frames", key) as path:
        ...     with ClipFileWriter(path, kind="frames", clip="a", fingerprint=key) as file:
        ...         file.array("frames", numpy.zeros((1, 2, 2), numpy.uint8))
        >>> cache.link("frames", key, "a.h5")  # a hard link: made once, used everywhere
        >>> cache.find("frames", key).name == f"{key}.h5"
        True
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
                check_identity(path, kind, fingerprint)
                if self.verify_on_use == "content" or path.stat().st_mtime_ns != _content_time(claimed_checksum(path)):
                    verify_entry(path)
            except (ClipFileError, OSError) as error:
                log.warning("damaged cache entry, will be recomputed: %s", error)
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
            check_identity(temporary, kind, fingerprint)
            verify_clip_file(temporary)
            checksum = claimed_checksum(temporary)
        else:
            checksum = sha256_of(temporary)
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


def _content_time(checksum: str) -> int:
    """Modification time of a published file, in nanoseconds: between 2001 and 2010, to the microsecond.

    It must differ where the content differs, because DVC takes a file for unchanged when inode number (soon used
    again), size (padded, so often equal) and this time are.
    """
    seconds, microseconds = int(checksum[:7], 16), int(checksum[7:12], 16) % 1_000_000
    return (1_000_000_000 + seconds) * 1_000_000_000 + microseconds * 1000


def _is_copy(source: Path, destination: Path) -> bool:
    if not destination.is_file():
        return False
    one, other = source.stat(), destination.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _is_left_over(path: Path) -> bool:
    try:
        machine, process = path.name.rsplit("-", 3)[-3:-1]
        quiet = time.time() - path.stat().st_mtime
    except (ValueError, FileNotFoundError):
        return False
    if machine == _machine() and process.isdigit():
        return not _is_alive(int(process))
    return quiet > _STALE_AFTER


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
