"""Clips on local processes, whatever becomes of them."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import TypeVar

from pipeline.execution.deaths import Deaths
from pipeline.execution.jobs import IN_FLIGHT, EndingWorker, died, why_died, windowed
from pipeline.execution.threaded import ThreadedProcesses

log = logging.getLogger(__name__)

Task = TypeVar("Task")


def with_processes(
    call: Callable[[Task], object], tasks: Iterable[Task], workers: int, gpus: int = 0, threads: int = 1
) -> Iterator[tuple[Task, Future]]:
    """Each task with its finished future, in the order in which they end; ``died`` tells of a future whether the task
    brought its worker down.

    When a worker dies, or ends because its GPU failed, the pool is broken and does not tell whose fault it was: the
    tasks that were in flight are then run one by one, each in a process of its own, and the rest continues in a new
    pool.

    Args:
        call: what is done with a task; picklable.
        gpus: how many the workers share; 0 leaves them alone.
        threads: of each worker, each with a task of its own.

    Raises:
        WorkersDied: too many died one after the other.
    """
    waiting = iter(tasks)
    deaths = Deaths()
    with one_thread_each():
        while True:
            suspects = []
            with _pool(workers, gpus, threads) as pool:
                for task, future in windowed(pool, EndingWorker(call), waiting, _in_flight(workers, threads)):
                    if died(future):
                        suspects.append(task)
                    else:
                        deaths.none()
                        yield task, future
            if not suspects:
                return
            log.info("a worker died; %d clips that were in work are tried one by one", len(suspects))
            for task, future in _one_by_one(call, suspects, gpus):
                if died(future):
                    deaths.one(why_died(future))
                else:
                    deaths.none()
                yield task, future


def _in_flight(workers: int, threads: int) -> int:
    """Tasks handed out, so that none waits for the parent; all of them are suspects when a worker dies."""
    return IN_FLIGHT * workers if threads == 1 else workers * (threads + IN_FLIGHT - 1)


def _one_by_one(call: Callable[[Task], object], tasks: list[Task], gpus: int) -> Iterator[tuple[Task, Future]]:
    """In one process at a time, so that one that dies tells which task it was."""
    waiting = deque(tasks)
    while waiting:
        with _pool(1, min(gpus, 1)) as pool:
            alive = True
            while waiting and alive:
                task = waiting.popleft()
                future = pool.submit(call, task)
                alive = not died(future)
                if not alive:
                    end_pool(pool)
                yield task, future


@contextmanager
def _pool(workers: int, gpus: int, threads: int = 1) -> Iterator[Executor]:
    """A pool that leaves no process behind, even when the block ends early (Ctrl-C, an error)."""
    pool = local_pool(workers, gpus) if threads == 1 else threaded_pool(workers, gpus, threads)
    try:
        yield pool
    except BaseException:
        end_pool(pool)
        raise
    pool.shutdown()


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def local_pool(workers: int, gpus: int = 0) -> ProcessPoolExecutor:
    """Processes started by spawn, one thread each; they end with their parent, however that ends.

    Args:
        workers: how many.
        gpus: workers see one GPU each, of so many, in turn; 0 leaves the GPUs alone.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(_places(workers, gpus),))


def threaded_pool(workers: int, gpus: int, threads: int) -> ThreadedProcesses:
    """As :func:`local_pool`, where each process does so many tasks at once. Its threads share what it opens."""
    return ThreadedProcesses(workers, threads, initializer=_start, initargs=(_places(workers, gpus),))


def _places(workers: int, gpus: int) -> Queue | None:
    """Numbers of the GPUs that the workers take, one after the other."""
    if not gpus:
        return None
    places = multiprocessing.get_context("spawn").SimpleQueue()
    for worker in range(workers):
        places.put(worker % gpus)
    return places


def end_pool(pool: ProcessPoolExecutor | ThreadedProcesses) -> None:
    """End a pool now, in the middle of whatever its workers do."""
    processes = list((pool._processes or {}).values())
    for process in processes:
        process.kill()
    pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """While the block runs, processes that are started compute with one thread."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(places: Queue | None) -> None:
    """What each worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if places is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        place = places.get()
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[place] if visible else str(place)
    import cv2

    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _die_with_parent() -> None:
    """A killed parent leaves no orphans: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
