"""Files that are being written: how they are named, and which of them were left over by processes that are gone.

``<what>-<machine>-<process>-<random>``. The process tells whether anyone is still at it.
"""

import hashlib
import os
import secrets
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_STALE_AFTER = 24 * 3600  # seconds; a temporary of another machine that was not touched for so long is left over


def temporary_name(what: str) -> str:
    """A name that no one else uses, for a file of this process."""
    return f"{what}-{machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_left_over(path: Path, *, name: str = "", stale_after: float = _STALE_AFTER) -> bool:
    """Whether a temporary's owner is gone: killed, or of another machine and silent for ``stale_after`` seconds.

    Args:
        name: that tells the owner, where it is not the path's.
    """
    try:
        where, process = (name or path.name).rsplit("-", 3)[-3:-1]
        quiet = time.time() - path.lstat().st_mtime
    except (ValueError, OSError):
        return False
    if where == machine() and process.isdigit():
        return not is_alive(int(process))
    return quiet > stale_after


@cache
def machine() -> str:
    """Eight digits for where process ids mean the same: host, boot and (in containers) id namespace."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with suppress(OSError):  # not Linux
            parts.append(read())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def is_alive(process: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
