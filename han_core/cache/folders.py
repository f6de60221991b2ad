"""Folders of a cache that several people fill, and whether the cache can be written at all."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from han_core.errors import HanError


class CacheUnusable(HanError, OSError):
    """The cache cannot be written; the message says where, why and what to do."""


def make_folder(root: Path, folder: Path) -> None:
    """Make a folder of the cache, with the group and the mode of the cache's root, whatever the umask.

    So a root that a group may write into (``chmod 2775``) stays one all the way down.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
    wanted = root.stat()
    for part in reversed([folder, *folder.parents]):
        if part == root or not part.is_relative_to(root) or part.is_dir():
            continue
        try:
            part.mkdir()
        except FileExistsError:  # someone else made it just now, and sees to its mode
            continue
        with suppress(PermissionError):  # not a member of that group: then the mode of the group matters to no one
            os.chown(part, -1, wanted.st_gid)
        part.chmod(wanted.st_mode & 0o7777)


_ADVICE = {
    errno.ENOSPC: "make room on that disk (`han cache prune`), or put HAN_CACHE on another",
    errno.EDQUOT: "your quota there is used up: make room (`han cache prune`), or put HAN_CACHE elsewhere",
    errno.EROFS: "that file system is read-only; put HAN_CACHE on one that can be written",
    errno.EACCES: "ask its owner for the right to read and write there",
    errno.EPERM: "ask its owner for the right to read and write there",
    errno.EMFILE: "raise the number of files a process may open (`ulimit -n 1024`), or lower run.workers",
    errno.ENFILE: "the machine has too many files open; close other programs, or lower run.workers",
    errno.ENOMEM: "the machine is out of memory; lower run.workers",
    errno.EFBIG: "files may not grow so large here (`ulimit -f`)",
    errno.ENOTDIR: "HAN_CACHE must be a folder",
    errno.EEXIST: "HAN_CACHE must be a folder",
}


def advice(error: OSError) -> str:
    """What to do about an error of the machine."""
    return _ADVICE.get(error.errno or 0, "mend that")


def probe(root: Path) -> None:
    """Write a small file into the cache and remove it, before hours of work depend on it.

    Raises:
        CacheUnusable: it cannot be written.
    """
    path = root / "tmp" / f"probe-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        make_folder(root, path.parent)
        try:
            path.write_bytes(bytes(1 << 16))
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        elsewhere = error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT)
        what = "set HAN_CACHE to a folder that you may write" if elsewhere else advice(error)
        raise CacheUnusable(f"the cache at {root} cannot be written ({reason}): {what}") from None
