"""Looks at the processes that work in a folder: how long they live, and the most memory that each holds."""

import contextlib
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Seen:
    """A process, as it was seen by looks ``_EVERY`` seconds apart."""

    command: str
    began: float
    ended: float
    megabytes: float = 0.0
    """The most memory that it held."""


_EVERY = 0.1


class Watch:
    """Looks at the processes that work in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[tuple[str, str], Seen] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def most(self, what: str) -> float:
        """Megabytes of the largest process whose command has this in it."""
        return max((seen.megabytes for seen in self.all() if what in seen.command), default=0.0)

    def all(self) -> list[Seen]:
        return list(self._seen.values())

    def stage(self, began: float, ended: float) -> Seen | None:
        """The own process of the stage that ran at that time; its workers are others."""
        for seen in self.all():
            if " -m pipeline." in seen.command and began - _EVERY <= seen.began <= ended:
                return seen
        return None

    def _look_on(self) -> None:
        while not self._stopped.wait(_EVERY):
            now = time.monotonic()
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if Path(os.readlink(process / "cwd")) != self._folder:
                        continue
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    held = re.search(r"VmHWM:\s*(\d+) kB", (process / "status").read_text())
                    seen = self._seen.setdefault((process.name, command), Seen(command, now, now))
                    seen.ended = now
                    seen.megabytes = max(seen.megabytes, int(held[1]) / 1024 if held else 0.0)
