"""Processes that work on several tasks at once: a GPU each, and threads that read, wait for it and write."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any


class ThreadedProcesses(Executor):
    """An executor of spawned processes with several threads each.

    ``ProcessPoolExecutor`` gives a process one task at a time. A process that holds a net on a GPU needs more: while
    one clip is computed, others are read and written, and a second process would hold the net, and what CUDA needs for
    itself, once more.

    What was handed to a process that dies fails with ``BrokenProcessPool``, and so does all that comes after; the tasks
    of the other processes end as usual.

    Args:
        processes, threads: how many, and how many in each.
        initializer, initargs: called first in each process.
    """

    def __init__(
        self, processes: int, threads: int, *, initializer: Callable[..., object], initargs: tuple[Any, ...] = ()
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._broken = False
        self._initargs = initargs  # a queue among them would be gone before the processes have it
        self._processes: dict[int | None, multiprocessing.process.BaseProcess] = {}
        self._lines: list[Connection] = []
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        for _ in range(processes):
            pairs = [context.Pipe() for _ in range(threads)]
            theirs = [pair[1] for pair in pairs]
            process = context.Process(target=_serve, args=(theirs, initializer, initargs), daemon=True)
            process.start()
            self._processes[process.pid] = process
            self._lines += [pair[0] for pair in pairs]
            for line in theirs:
                line.close()  # the process has its own: when it dies, nobody holds this end any more
        for thread in range(threads):
            for line in self._lines[thread::threads]:  # few tasks spread over the processes
                self._idle.put(line)
        self._threads = ThreadPoolExecutor(processes * threads, thread_name_prefix="ask")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As ``Executor.submit``; what is called, and with what, travels to another process."""
        if self._broken:
            raise BrokenProcessPool("a worker process died")
        return self._threads.submit(self._ask, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end once they have done what was submitted."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            for line in self._lines:
                line.close()
            for process in self._processes.values():
                process.join()

    def _ask(self, function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        line = self._idle.get()
        try:
            if self._broken:
                raise BrokenProcessPool("a worker process died")
            try:
                line.send((function, args, kwargs))
                done, value = line.recv()
            except (EOFError, OSError) as error:
                self._broken = True
                raise BrokenProcessPool(f"a worker process died ({type(error).__name__})") from None
        finally:
            self._idle.put(line)
        if not done:
            raise value
        return value


def _serve(lines: list[Connection], initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """What a process does: a thread for each line, on which one task comes after the other."""
    initializer(*initargs)
    threads = [Thread(target=_answer, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answer(line: Connection) -> None:
    while True:
        try:
            function, args, kwargs = line.recv()
        except EOFError:
            return
        try:
            reply = True, function(*args, **kwargs)
        except Exception as error:
            reply = False, error
        try:
            line.send(reply)
        except Exception as error:  # what cannot travel
            line.send((False, RuntimeError(f"{type(error).__name__}: {error}, of {reply[1]!r}")))
