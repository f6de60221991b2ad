"""The content-addressed cache of finished files: every clip file (and every fine-tuned net) is made once.

A file is known by its fingerprint: a hash of what it was made from (stage, parameters, content of the inputs), and a
digest of the code that makes it (:mod:`han_core.cache.fingerprint`). Layout below the root::

    <kind>/<aa>/<fingerprint>.h5                        clip files; aa: first two digits of the fingerprint
    <kind>/<aa>/<fingerprint>.<sha256>.safetensors      files of other formats carry their checksum in the name
    tmp/                                                files being written, and who is at what
    checkpoints/<run>-<code>.safetensors                last states of training runs that have not finished

Publishing is a rename (or a hard link) within one file system, so an entry is either absent or complete, whatever is
killed, and several people may fill one cache on a shared disk at once. Entries are read-only; folders have the group
and the mode of the root.

Entries are handed out as hard links: cache, DVC's own cache and the workspace share one copy on disk. The other
side of that coin is that whoever overwrites a linked file in place damages all of them; therefore nothing here ever
opens an existing file for writing, and links are made beside their destination and renamed over it.

What is checked when an entry is reused: by default the trailer of a clip file (its fingerprint, kind and length), one
read of 1 KiB, which finds truncated and mixed-up files; and the modification time. Publishing sets that to a time
computed from the content, so a file that was written to since, through any of its names, gives itself away and is
verified in full. With ``verify="content"`` every file is, at the price of reading everything (1 to 2 GB/s a core, or
what the disk gives). An entry that fails is treated as absent, is recomputed and replaced. Bits that flipped on the
disk are found at the latest by whoever reads the file.
"""

import errno
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NoReturn, Self

from han_core.cache.claims import Claims
from han_core.cache.fingerprint import code_of, without_code
from han_core.cache.folders import make_folder
from han_core.cache.temporaries import is_left_over, temporary_name
from han_core.cache.verify import check_identity, claimed_checksum, sha256_of, verify_entry, verify_written
from han_core.clipfile.trailer import ClipFileError, Trailer

log = logging.getLogger(__name__)

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
        >>> key = fingerprint("demo", "c0de", {"quality": 95}, {"video": "sha256 of its bytes"})
        >>> with cache.create("frames", key) as path:
        ...     with ClipFileWriter(path, kind="frames", clip="a", fingerprint=key) as file:
        ...         file.array("frames", numpy.zeros((1, 2, 2), numpy.uint8))
        >>> trailer = cache.link("frames", key, "a.h5")  # a hard link: made once, used everywhere
        >>> cache.find("frames", key).name == f"{key}.h5"
        True
    """

    def __init__(self, root: str | Path, *, verify: Literal["size", "content"] = "size") -> None:
        self.root = Path(root)
        self.verify_on_use = verify
        self.claims = Claims(self.root / "tmp")
        self._said_copying = False

    @classmethod
    def from_environment(cls, *, verify: Literal["size", "content"] = "size") -> Self:
        """The cache at ``$HAN_CACHE``, by default ``.han_cache`` in the current folder; ``~`` is a home folder."""
        return cls(os.path.expanduser(os.environ.get("HAN_CACHE") or ".han_cache"), verify=verify)

    def find(self, kind: str, fingerprint: str, suffix: str = ".h5") -> Path | None:
        """The finished file, or None if there is none or it is damaged (which is logged)."""
        found = self._sound(kind, fingerprint, suffix)
        return found[0] if found else None

    @contextmanager
    def create(self, kind: str, fingerprint: str, suffix: str = ".h5") -> Iterator[Path]:
        """Write a file: yields a temporary path; a clean end of the block publishes it, an exception removes it.

        Publishing: flush to disk, verify (clip files), make read-only, rename. If someone else published the same
        fingerprint meanwhile, theirs is kept.

        Raises:
            ClipFileError: what was written does not verify, or is not of this kind and fingerprint.
            OSError: the cache cannot be written.
        """
        temporary = self.temporary(f"{kind}-{fingerprint[:16]}", suffix)
        try:
            yield temporary
            self._publish(temporary, kind, fingerprint, suffix)
        finally:
            with suppress(OSError):  # the error that led here is what is told
                temporary.unlink(missing_ok=True)

    def temporary(self, what: str, suffix: str = "") -> Path:
        """A path in the cache for a file of this process, which is swept away if the process is killed."""
        make_folder(self.root, self.root / "tmp")
        return self.root / "tmp" / f"{temporary_name(what)}{suffix}"

    def adopt(self, kind: str, fingerprint: str, code: str, suffix: str = ".h5") -> None:
        """Give a file that other code made the name of a file of this code, too; both stay.

        Args:
            fingerprint: of the file as it is.
            code: today's. That it makes the same bytes is the caller's to know.

        Raises:
            FileNotFoundError: the cache has no such file.
            OSError: the cache cannot be written.
        """
        for source in self._candidates(kind, fingerprint, suffix) or [self._missing(kind, fingerprint)]:
            name = source.name.replace(fingerprint, f"{without_code(fingerprint)}-{code}", 1)
            with suppress(FileExistsError):
                try:
                    os.link(source, source.with_name(name))
                except OSError as error:
                    if error.errno not in _NO_HARD_LINKS:
                        raise
                    temporary = self.temporary(f"adopt-{fingerprint[:16]}")
                    _copy(source, temporary)
                    os.replace(temporary, source.with_name(name))

    def codes(self, kind: str, fingerprint: str, suffix: str = ".h5") -> list[str]:
        """Of which other codes the cache has a file made from the same."""
        own = without_code(fingerprint)
        found = {path.name.split(".")[0] for path in self._folder(kind, fingerprint).glob(f"{own}-*{suffix}")}
        return sorted(code_of(name) for name in found - {fingerprint})

    def link(self, kind: str, fingerprint: str, destination: str | Path, suffix: str = ".h5") -> Trailer | None:
        """Give a finished file the name ``destination``: a hard link, or a copy where the file system has none.

        An existing destination is replaced by rename, never written into. Its folder is made. May be called by several
        threads, for several files.

        Returns:
            What the trailer of a clip file says of it; None of other formats.

        Raises:
            FileNotFoundError: the cache has no such file.
        """
        source, trailer = self._sound(kind, fingerprint, suffix) or self._missing(kind, fingerprint)
        self._link(source, Path(destination), kind, fingerprint)
        return trailer

    def _link(self, source: Path, destination: Path, kind: str, fingerprint: str) -> None:
        with suppress(OSError):  # whatever is in the way is dealt with below
            os.link(source, destination)  # thousands of times the only access that is needed
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists() and not destination.is_symlink() and destination.samefile(source):
            return
        beside = destination.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            try:
                os.link(source, beside)
            except OSError as error:
                if error.errno == errno.ENOENT and not source.exists():
                    self._missing(kind, fingerprint)  # pruned just now
                if error.errno not in _NO_HARD_LINKS:
                    raise
                self._say_copying(error, source)
                if _is_copy(source, destination):
                    return
                _copy(source, beside)
            os.replace(beside, destination)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)

    def checkpoint_path(self, fingerprint: str) -> Path:
        """Where the last state of the training run of this fingerprint is kept while it has not finished."""
        make_folder(self.root, self.root / "checkpoints")
        return self.root / "checkpoints" / f"{fingerprint}.safetensors"

    def left_over(self) -> tuple[Path, ...]:
        """Temporaries and claims of processes that are gone (killed), or of other machines and long untouched."""
        files = (path for path in sorted((self.root / "tmp").glob("*")) if path.suffix != ".claim")
        return (*(path for path in files if is_left_over(path)), *self.claims.left_over())

    def sweep(self) -> None:
        """Delete the temporaries that are left over; their owners will not come back for them."""
        for path in self.left_over():
            with suppress(OSError):  # another person's, in a folder that is not the team's
                path.unlink(missing_ok=True)

    def _sound(self, kind: str, fingerprint: str, suffix: str) -> tuple[Path, Trailer | None] | None:
        """A finished file and, of a clip file, its trailer; None if there is none or it is damaged."""
        for path in self._candidates(kind, fingerprint, suffix):
            try:
                trailer = check_identity(path, kind, fingerprint)
                checksum = trailer.sha256 if trailer else claimed_checksum(path)
                if self.verify_on_use == "content" or path.stat().st_mtime_ns != _content_time(checksum):
                    verify_entry(path)
            except (ClipFileError, OSError) as error:
                log.warning("damaged cache entry, will be recomputed: %s", error)
                continue
            return path, trailer
        return None

    def _folder(self, kind: str, fingerprint: str) -> Path:
        return self.root / kind / fingerprint[:2]

    def _missing(self, kind: str, fingerprint: str) -> NoReturn:
        raise FileNotFoundError(f"{self.root}: has no finished {kind} file {fingerprint}")

    def _candidates(self, kind: str, fingerprint: str, suffix: str) -> list[Path]:
        folder = self._folder(kind, fingerprint)
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
            checksum = verify_written(temporary, kind, fingerprint).sha256
        else:
            checksum = sha256_of(temporary)
            name = f"{fingerprint}.{checksum}{suffix}"
        temporary.chmod(0o444)
        stamp = _content_time(checksum)
        os.utime(temporary, ns=(stamp, stamp))
        folder = self._folder(kind, fingerprint)
        make_folder(self.root, folder)
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

    def _say_copying(self, error: OSError, source: Path) -> None:
        if self._said_copying:
            return
        self._said_copying = True
        what = "Put HAN_CACHE on the file system of the project to share one copy."
        if error.errno == errno.EPERM and source.stat().st_uid != os.getuid():
            what = (
                "They belong to someone else, and this machine's setting fs.protected_hardlinks forbids links to other "
                "people's files. Where its administrator sets it to 0, one copy is shared."
            )
        log.warning(
            "no hard links from %s to the outputs (%s): files are copied, which takes twice the disk. %s",
            self.root,
            error.strerror,
            what,
        )


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


def _copy(source: Path, destination: Path) -> None:
    shutil.copyfile(source, destination)
    shutil.copystat(source, destination)


def _flush(path: Path) -> None:
    """Ask the kernel to put a file on disk. Its name may be lost with the power: then the file is made again."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)
