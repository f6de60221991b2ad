"""Clips on the workers of a Dask cluster, whatever becomes of them.

Each clip is handed to one worker by name. Left to itself, Dask tries what a dead worker had on the next workers, and
after the fourth death blames all that was there: a clip that kills takes four workers with it, and others that were
beside it are blamed, too. So a worker's death is known here with what it had, and the rule is that of local processes
(:mod:`pipeline.execution.deaths`): what was in work is tried alone.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from pipeline.execution.cluster import Cluster, SchedulerLost
from pipeline.execution.deaths import Deaths
from pipeline.execution.jobs import DIED, IN_FLIGHT, EndingWorker, GpuFailed, died
from pipeline.execution.on_worker import OnWorker
from pipeline.execution.sent import Packing

if TYPE_CHECKING:
    import distributed

log = logging.getLogger(__name__)

Task = TypeVar("Task")

_POLL = 0.5  # seconds; a clip that ends wakes the parent at once
_RESULT = 2  # seconds in which a result that is there must come
_DONE = ("finished", "error", "cancelled")


def with_cluster(
    cluster: Cluster, call: Callable[[Task], object], tasks: Iterable[Task], *, net: bool = False, alone: bool = False
) -> Iterator[tuple[Task, Future]]:
    """As :func:`pipeline.execution.local.with_processes`, on the workers that there are at each moment.

    What a worker had that took its leave is handed to others. When a worker dies, what it had is tried clip by clip,
    each on a worker that does nothing else, while the other workers go on.

    Args:
        call: what is done with a task; picklable.
        net, alone: see :class:`~pipeline.execution.on_worker.OnWorker`.

    Raises:
        WorkersDied: too many died one after the other, none is left, or the scheduler is lost.
    """
    handing = _Handing(cluster, Packing(EndingWorker(OnWorker(call, net, alone))), iter(tasks))
    try:
        yield from handing.outcomes()
    finally:
        cluster.cancel([handed.future for handed in handing.handed.values()])


@dataclass
class _Handed(Generic[Task]):
    """A task that a worker has."""

    task: Task
    worker: str
    future: "distributed.Future"


@dataclass
class _Handing(Generic[Task]):
    """What is where."""

    cluster: Cluster
    packing: Packing
    tasks: Iterator[Task]
    handed: dict[str, _Handed[Task]] = field(default_factory=dict)
    """By the key of the future."""
    again: deque[Task] = field(default_factory=deque)
    """Of workers that left."""
    suspects: deque[Task] = field(default_factory=deque)
    """Of workers that died."""
    trying: dict[str, str] = field(default_factory=dict)
    """Worker -> key of the suspect that it has alone, or "" while it still ends what it had before."""
    ended: "SimpleQueue[str]" = field(default_factory=SimpleQueue)
    """Keys of futures that are done, in whatever way."""
    deaths: Deaths = field(default_factory=Deaths)

    def outcomes(self) -> Iterator[tuple[Task, Future]]:
        """Hand out, and wait for what comes back, until nothing is left."""
        while True:
            self._hand_out()
            if not (self.handed or self.again or self.suspects):
                task = next(self.tasks, None)
                if task is None:
                    return
                self.again.append(task)  # there is no worker now
            late = False
            ended = [key for key in self._ended() if key in self.handed]
            results = self._results(ended)
            for key in ended:
                if self.handed[key].future.status not in _DONE:  # what its worker had made was lost with it
                    late = True
                    self._expect(self.handed[key].future)
                elif found := self._taken(key, results):
                    yield found
            if self.cluster.look_again(now=late):
                yield from self._bury()

    def _hand_out(self) -> None:
        having = dict.fromkeys(self.cluster.threads, 0)
        for handed in self.handed.values():
            if handed.worker in having:
                having[handed.worker] += 1
        self._try_suspects(having)
        free = {
            worker: (threads + IN_FLIGHT - 1) - having[worker]
            for worker, threads in self.cluster.threads.items()
            if worker not in self.trying
        }
        while free := {worker: room for worker, room in free.items() if room > 0}:
            for worker in sorted(free, key=free.__getitem__, reverse=True):  # few tasks spread over the workers
                task = self.again.popleft() if self.again else next(self.tasks, None)
                if task is None:
                    return
                self._submit(task, worker)
                free[worker] -= 1

    def _try_suspects(self, having: dict[str, int]) -> None:
        """Suspects have up to half of the workers for themselves, one at a time each."""
        self.trying = {worker: key for worker, key in self.trying.items() if worker in having}
        wanted = min(len(self.suspects) + sum(map(bool, self.trying.values())), max(1, len(having) // 2))
        for worker in sorted(having.keys() - self.trying.keys(), key=having.__getitem__):
            if len(self.trying) < wanted:
                self.trying[worker] = ""
        for worker, key in list(self.trying.items()):
            if key or having[worker]:
                continue
            if self.suspects:
                self.trying[worker] = self._submit(self.suspects.popleft(), worker)
            else:
                del self.trying[worker]

    def _submit(self, task: Task, worker: str) -> str:
        try:
            future = self.cluster.client.submit(
                self.packing(task), workers=[worker], allow_other_workers=False, pure=False, retries=0
            )
            self.handed[future.key] = _Handed(task, worker, future)
            self._expect(future)
        except (OSError, RuntimeError, CancelledError) as error:
            raise self.cluster.lost(error) from None
        return future.key

    def _expect(self, future: "distributed.Future") -> None:
        future.add_done_callback(lambda done: self.ended.put(done.key))

    def _ended(self) -> list[str]:
        """What ended since, or ends soon."""
        found = []
        with suppress(Empty):
            found.append(self.ended.get(timeout=_POLL))
            while True:
                found.append(self.ended.get_nowait())
        return found

    def _results(self, keys: list[str]) -> dict[str, object]:
        """Results of several futures at once, which takes no longer than one; of none where that fails."""
        good = [key for key in keys if self.handed[key].future.status == "finished"]
        with suppress(SchedulerLost):
            found = self.cluster.results([self.handed[key].future for key in good], _RESULT) if len(good) > 1 else []
            if len(found) == len(good):
                return dict(zip(good, found, strict=True))
        return {}

    def _taken(self, key: str, results: Mapping[str, object]) -> tuple[Task, Future] | None:
        """A task that came back with its finished future; None where it did not, or is to be tried again.

        Args:
            results: by key, of those that are here already.
        """
        handed = self.handed[key]
        result: Future = Future()
        if handed.future.status == "cancelled":
            raise self.cluster.lost()
        try:
            result.set_result(results[key] if key in results else handed.future.result(timeout=_RESULT))
        except TimeoutError as error:
            if handed.future.status != "error":  # its worker died just now, which is seen later, or is slow
                self.ended.put(key)
                return None
            result.set_exception(error)
        except CancelledError as error:
            raise self.cluster.lost(error) from None
        except Exception as error:
            result.set_exception(error)
        del self.handed[key]
        alone = self._tried(handed.worker, key)
        if not died(result):
            self.deaths.none()
            return handed.task, result
        error = result.exception()
        if isinstance(error, GpuFailed):  # of a worker that nobody starts again
            self.cluster.refuse(handed.worker, str(error))
        if alone:
            self.deaths.one(str(error) if isinstance(error, GpuFailed) else DIED)
            return handed.task, result
        self.suspects.append(handed.task)
        return None

    def _bury(self) -> Iterator[tuple[Task, Future]]:
        """What becomes of the tasks of workers that are gone; those that are to blame come out."""
        gone: dict[str, list[str]] = {}
        for key, handed in self.handed.items():
            if handed.worker not in self.cluster.threads:
                gone.setdefault(handed.worker, []).append(key)
        for worker, keys in gone.items():
            left = self.cluster.left(worker)
            lost = [self.handed.pop(key) for key in keys]
            self.cluster.cancel([handed.future for handed in lost])
            alone = self._tried(worker, keys[0])
            if left:
                log.info("worker %s left; %d clips go to others", worker, len(lost))
                self.again.extend(handed.task for handed in lost)
            elif alone:
                self.deaths.one(DIED)
                broken: Future = Future()
                broken.set_exception(BrokenExecutor(DIED))
                yield lost[0].task, broken
            else:
                log.info("worker %s died; %d clips that were in work are tried one by one", worker, len(lost))
                self.suspects.extend(handed.task for handed in lost)

    def _tried(self, worker: str, key: str) -> bool:
        """Whether the worker had this task alone; it is free for the next one then."""
        if self.trying.get(worker) != key:
            return False
        self.trying[worker] = ""
        return True
