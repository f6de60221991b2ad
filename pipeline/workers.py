"""Where the clips of a stage are worked on: here, in local processes, or on a dask cluster."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import Queue

import click

from pipeline.params import Run

_WORKERS_PER_GPU = 3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


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


def local_pool(workers: int, gpus: int = 0) -> ProcessPoolExecutor:
    """Processes started by spawn, one thread each; they end with their parent, however that ends.

    Args:
        workers: how many.
        gpus: workers see one GPU each, of so many, in turn; 0 leaves the GPUs alone.
    """
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for worker in range(workers if gpus else 0):
        places.put(worker % gpus)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(places if gpus else None,))


def end_pool(pool: ProcessPoolExecutor) -> None:
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


@contextmanager
def dask_executor(run: Run) -> Iterator[tuple[Executor, int]]:
    """The cluster at ``run.scheduler`` as an executor, and how many clips it works on at once.

    Its workers have to see the project's folder and the cache under the same paths as this process.

    Raises:
        click.ClickException: dask is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise click.ClickException(
            "run.executor is dask, but dask is not installed: pip install 'han-video[cluster]'"
        ) from None
    try:
        client = Client(run.scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise click.ClickException(f"run.scheduler: no dask scheduler answers at {run.scheduler} ({error})") from None
    with client:
        yield client.get_executor(pure=False, retries=0), max(1, sum(client.nthreads().values()))


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
