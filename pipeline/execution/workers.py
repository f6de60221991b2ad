"""How many workers a stage has, and the executor that has none."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future

from pipeline.params import Run

_WORKERS_PER_GPU = 3


class InlineExecutor(Executor):
    """Runs each call at once in this process: for stages that hold a GPU or a net."""

    def submit(self, function: Callable, /, *arguments: object, **named: object) -> Future:
        """Call now; the future is done when this returns. ``KeyboardInterrupt`` passes through."""
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(run: Run, gpus: int = 0) -> int:
    """Worker processes: ``run.workers``, or one for each core, or three for each GPU."""
    return run.workers or (_WORKERS_PER_GPU * gpus if gpus else cores())
