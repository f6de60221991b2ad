"""What a worker does with a clip, what came of it, and handing such tasks to an executor."""

import re
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC, EROFS
from pathlib import Path
from typing import TypeVar

from han_core.cache.store import ClipCache
from han_core.clipfile.trailer import ClipFileError
from han_core.clips import Clip
from han_core.errors import ClipError

Task = TypeVar("Task")

DIED = "the worker process died: out of memory, killed, or a crash in compiled code"


IN_FLIGHT = 3  # tasks handed out for each worker, so that none waits for the parent


@dataclass(frozen=True)
class ClipTask:
    """What is to be done for one clip."""

    clip: Clip
    fingerprint: str
    """Of the file to be made; "" for a clip that failed in an earlier stage."""
    arguments: object = None
    """Whatever the function needs; must be picklable, and small."""


@dataclass(frozen=True)
class Outcome:
    """What came of one task: nothing, a reason of failure, or a reason to stop everything."""

    reason: str = ""
    details: str = ""
    fatal: str = ""


@dataclass(frozen=True)
class Call:
    """What a worker does with a task."""

    function: Callable[[ClipTask, Path], None]
    kind: str
    cache_root: Path

    def __call__(self, task: ClipTask) -> Outcome:
        path = None
        try:
            with ClipCache(self.cache_root).create(self.kind, task.fingerprint) as path:
                self.function(task, path)
        except (ClipError, ClipFileError) as error:
            return Outcome(_plain(str(error), path))
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT, EROFS):
                return Outcome(fatal=f"cannot write to {self.cache_root}: {error.strerror}")
            return _internal(error, path)
        except Exception as error:
            return _internal(error, path)
        return Outcome()


def _internal(error: Exception, path: Path | None) -> Outcome:
    reason = f"internal error: {type(error).__name__}: {error}"
    return Outcome(_plain(reason, path), "".join(traceback.format_exception(error)))


def _plain(reason: str, path: Path | None) -> str:
    """One line without what differs between runs."""
    if path is not None:
        reason = reason.replace(str(path), "the file being written")
    return " ".join(re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", reason).split())


def died(future: Future) -> bool:
    """Whether a task that was handed out brought its worker down; waits for it."""
    error = future.exception()
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"  # dask's name for it


def outcome_of(future: Future) -> Outcome:
    """What came of a task that was handed out, also where nothing came back."""
    error = future.exception()
    if error is None:
        return future.result()
    if died(future):
        return Outcome(DIED)
    return Outcome(_plain(f"internal error: {type(error).__name__}: {error}", None), repr(error))


def windowed(
    executor: Executor, call: Callable[[Task], object], tasks: Iterator[Task], in_flight: int
) -> Iterator[tuple[Task, Future]]:
    """Submit tasks, a bounded number ahead; yield them with their finished futures.

    After the executor broke, nothing more is taken from ``tasks``; what was submitted still comes out.
    """
    pending: dict[Future, Task] = {}
    broken = False
    while True:
        while not broken and len(pending) < in_flight:
            task = next(tasks, None)
            if task is None:
                break
            try:
                pending[executor.submit(call, task)] = task
            except BrokenExecutor as error:
                broken = True
                future: Future = Future()
                future.set_exception(error)
                yield task, future
        if not pending:
            return
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            broken = broken or isinstance(future.exception(), BrokenExecutor)
            yield pending.pop(future), future
