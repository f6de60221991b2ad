"""Who is making which file right now, so that people who fill one cache at once do not make the same.

A claim is a courtesy, never a lock: who finds one does something else first, and in the end makes the file all the
same. So no one waits for anyone, and a killed process blocks nobody.
"""

import os
from contextlib import suppress
from pathlib import Path

from han_core.cache.temporaries import is_left_over, machine, temporary_name

_STALE_AFTER = 3600  # seconds; no clip takes so long, and a mistake costs a file made twice


class Claims:
    """The claims on the files of a cache: symbolic links that lead nowhere, whose text is the owner. Where there are no
    symbolic links there are no claims.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def held_by_another(self, kind: str, fingerprint: str) -> bool:
        """Whether another process, which lives, says that it makes the file."""
        path = self._path(kind, fingerprint)
        owner = _owner(path)
        mine = owner.startswith(f"claim-{machine()}-{os.getpid()}-")
        return bool(owner) and not mine and not is_left_over(path, name=owner, stale_after=_STALE_AFTER)

    def take(self, kind: str, fingerprint: str) -> None:
        """Say that this process makes the file."""
        path = self._path(kind, fingerprint)
        with suppress(OSError):
            path.unlink(missing_ok=True)
            os.symlink(temporary_name("claim"), path)

    def drop(self, kind: str, fingerprint: str) -> None:
        """Take it back."""
        with suppress(OSError):
            self._path(kind, fingerprint).unlink(missing_ok=True)

    def left_over(self) -> list[Path]:
        """Those of processes that are gone."""
        claims = sorted(self._folder.glob("*.claim"))
        return [path for path in claims if is_left_over(path, name=_owner(path), stale_after=_STALE_AFTER)]

    def _path(self, kind: str, fingerprint: str) -> Path:
        return self._folder / f"{kind}-{fingerprint}.claim"


def _owner(path: Path) -> str:
    """Who has a claim; "" where there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""
