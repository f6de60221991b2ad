"""What a worker does with a clip, what came of it, and handing such tasks to an executor."""

import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from han_core.cache.folders import advice
from han_core.cache.store import ClipCache
from han_core.clips import Clip
from han_core.devices import DeviceError, gpu_fault
from han_core.errors import ClipError, HanError
from pipeline.execution.code import CodeChanged, stage_code
from pipeline.execution.opened import one_task

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
    patient: bool = True
    """Whether to leave the clip alone for now if someone else is making its file."""


@dataclass(frozen=True)
class Outcome:
    """What came of one task."""

    what: Literal["made", "found", "busy", "failed", "fault", "fatal"] = "made"
    """``made``: the file. ``found``: someone else made it meanwhile. ``busy``: someone else is making it. ``failed``:
    the clip cannot be processed. ``fault``: something else is wrong, which may spare other clips: a file of an earlier
    stage is damaged, or there is a bug. ``fatal``: something is wrong with the machine."""
    reason: str = ""
    details: str = ""


class GpuFailed(HanError, RuntimeError):
    """This process can use its GPU no more, or the GPU has no memory for the task: whatever it did next would fail,
    too, or take memory from others."""


@dataclass(frozen=True)
class Call:
    """What a worker does with a task.

    Raises:
        GpuFailed: when it is called and the GPU fails. All other errors are outcomes.
    """

    function: Callable[[ClipTask, Path], None]
    kind: str
    cache_root: Path
    stage: str
    """As in ``dvc.yaml``; "" for a function that is of none."""
    code: str
    """Digest of the stage's code where the stage was started. A worker of other code makes nothing under this name."""

    def __call__(self, task: ClipTask) -> Outcome:
        path = None
        cache = ClipCache(self.cache_root)
        claimed = False
        try:
            if self.stage and stage_code(self.stage) != self.code:
                return Outcome("fatal", _OTHER_CODE)
            if cache.find(self.kind, task.fingerprint):
                return Outcome("found")
            if task.patient and cache.claims.held_by_another(self.kind, task.fingerprint):
                return Outcome("busy")
            with cache.create(self.kind, task.fingerprint) as path:
                cache.claims.take(self.kind, task.fingerprint)
                claimed = True
                with one_task():
                    self.function(task, path)
        except ClipError as error:
            return Outcome("failed", _plain(str(error), path))
        except CodeChanged:
            return Outcome("fatal", _OTHER_CODE)
        except DeviceError as error:  # it was there when the stage began
            raise GpuFailed(_plain(f"the GPU is gone ({error})", path)) from error
        except HanError as error:
            return Outcome("fault", _plain(str(error), path))
        except OSError as error:
            return Outcome("fatal", machine_fault(error, self.cache_root))
        except MemoryError as error:
            return Outcome("fault", "out of memory; lower run.workers", _trace(error))
        except Exception as error:
            if fault := gpu_fault(error):
                raise GpuFailed(_plain(fault, path)) from error
            return Outcome("fault", _plain(f"internal error: {type(error).__name__}: {error}", path), _trace(error))
        finally:
            if claimed:
                cache.claims.drop(self.kind, task.fingerprint)
        return Outcome()


@dataclass(frozen=True)
class EndingWorker:
    """A call whose process ends where its GPU failed.

    From then on the process could do nothing but fail, at once, and so would take all that is waiting from the others.
    """

    call: Callable[[Task], object]

    def __call__(self, task: Task) -> object:
        try:
            return self.call(task)
        except GpuFailed as error:
            if multiprocessing.parent_process() is None:  # a thread of the process that everything hangs on
                raise
            print(f"a worker process ends: {error}", file=sys.stderr, flush=True)
            os._exit(1)


_OTHER_CODE = "a worker has other code than the stage was started with; start the workers, and then the stage, again"


def machine_fault(error: OSError, where: Path) -> str:
    """An error of the machine in a sentence, and what to do about it."""
    name = f"{error.filename}: " if error.filename and not str(error.filename).startswith(str(where)) else ""
    return f"cannot go on ({name}{error.strerror or error}; the cache is at {where}): {advice(error)}"


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def _plain(reason: str, path: Path | None) -> str:
    """One line without what differs between runs."""
    if path is not None:
        reason = reason.replace(str(path), "the file being written")
    return " ".join(re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", reason).split())


def died(future: Future) -> bool:
    """Whether a task that was handed out brought its worker down, or left it of no use; waits for it."""
    error = future.exception()
    lost = isinstance(error, BrokenExecutor | GpuFailed)
    return lost or type(error).__name__ == "KilledWorker"  # dask's name for it


def why_died(future: Future) -> str:
    """The reason, of a future that :func:`died`."""
    error = future.exception()
    return str(error) if isinstance(error, GpuFailed) else DIED


def outcome_of(future: Future, *, own_worker: bool = True) -> Outcome:
    """What came of a task that was handed out, also where nothing came back.

    Args:
        own_worker: whether a worker that the task makes useless is replaced. Else nothing else can be done, either.
    """
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, GpuFailed):
        return Outcome("failed" if own_worker else "fatal", str(error))
    if died(future):
        return Outcome("failed", DIED)
    return Outcome("fault", _plain(f"internal error: {type(error).__name__}: {error}", None), repr(error))


def windowed(
    executor: Executor, call: Callable[[Task], object], tasks: Iterator[Task], in_flight: int
) -> Iterator[tuple[Task, Future]]:
    """Submit tasks, a bounded number ahead; yield them with their finished futures.

    ``tasks`` may get new ones while others are in work: it is asked again after each that ends. After the executor
    broke, nothing more is taken from it; what was submitted still comes out.
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
