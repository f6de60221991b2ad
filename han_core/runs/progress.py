"""How far long work has come: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm


class Progress:
    """Counts steps of known or unknown number; a context manager.

    Args:
        what: shown in front, e.g. the stage's name.
        total: number of steps; None if not known.
        unit: what one step is, in the singular.
        every: seconds between two plain lines where there is no terminal.
        stream: where to write; standard error by default.
        quiet: write nothing.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        unit: str = "clip",
        every: float = 30.0,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.done = 0
        self._stream = stream or sys.stderr
        self._start = self._said = time.monotonic()
        self._note = ""
        self._bar: tqdm | None = None
        self._quiet = quiet
        if self._stream.isatty() and not quiet:
            self._bar = tqdm(total=total, desc=what, unit=unit, file=self._stream, dynamic_ncols=True, leave=False)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps as done; ``note`` (e.g. ``loss 0.52``) is shown behind."""
        self.done += steps
        self._note = note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(steps)
        elif not self._quiet and time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """Where the work stands, as one plain line."""
        rate = self.done / max(time.monotonic() - self._start, 1e-9)
        of = f"/{self.total}" if self.total is not None else ""
        left = ""
        if self.total is not None and rate > 0:
            left = f", about {(self.total - self.done) / rate:.0f} s left"
        note = f" {self._note}" if self._note else ""
        return f"{self.what}: {self.done}{of} {self.unit}s, {rate:.2f}/s{left}{note}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
