"""What a worker of a cluster does around each clip: it may have threads, and is not started by this project."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Task = TypeVar("Task")


@dataclass(frozen=True)
class OnWorker:
    """A call on one of the threads of a Dask worker.

    Args:
        call: what is done with a task.
        net: whether it opens a net, which the threads share (:mod:`pipeline.execution.opened`). On a CPU it computes
            with as many threads as the worker has; all else computes with one for each task.
        alone: whether the worker may do one task at a time only, however many threads it has.
    """

    call: Callable[[Task], object]
    net: bool
    alone: bool

    def __call__(self, task: Task) -> object:
        _settle(self.net)
        if not self.alone:
            return self.call(task)
        with _ALONE:
            return self.call(task)


_ALONE = threading.Lock()
_SETTLING = threading.Lock()
_settled: set[bool] = set()


def _settle(net: bool) -> None:
    """Libraries start no threads beside those of the worker."""
    if net:
        import torch
        from distributed import get_worker

        # In each thread: torch keeps the number by thread, and threads that start later take the last one that was set.
        torch.set_num_threads(get_worker().state.nthreads)
    with _SETTLING:
        if net in _settled:
            return
        _settled.add(net)
        import cv2

        cv2.setNumThreads(1)
        if not net:
            from threadpoolctl import threadpool_limits

            threadpool_limits(1, "blas")
