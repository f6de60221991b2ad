"""A few accesses to each of thousands of small files, by as many threads as the disk makes wait."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_A_TIME = 32
"""Items that a thread takes at once: fewer would cost more than the accesses on a local disk."""
MOST_THREADS = 16
_LEAST_WAIT = 2
"""Times that the clock must say more than the processor: a thread that computes all the time holds the interpreter's
lock, and others beside it only get in its way (twice the processor time, measured on a local disk)."""


def each(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Each item, in order, with what a function makes of it.

    The first ones are done by this thread. If the function computed meanwhile, it does the others, too; if it mostly
    waited, as for a disk over a network, threads wait together.

    Args:
        function: may be called by several threads at once. What it raises is raised here, and nothing more is begun.
    """
    wall, busy = time.perf_counter(), time.thread_time()
    first = [(item, function(item)) for item in items[:AT_A_TIME]]
    threads = threads_for(time.perf_counter() - wall, time.thread_time() - busy)
    yield from first
    rest = items[AT_A_TIME:]
    if threads == 1:
        for item in rest:
            yield item, function(item)
        return
    parts = [rest[start : start + AT_A_TIME] for start in range(0, len(rest), AT_A_TIME)]
    if not parts:
        return

    def do(part: Sequence[Item]) -> list[Result]:
        return [function(item) for item in part]

    with ThreadPoolExecutor(min(threads, len(parts)), thread_name_prefix="files") as pool:
        for part, results in zip(parts, pool.map(do, parts), strict=True):  # which ends what waits after an error
            yield from zip(part, results, strict=True)


def threads_for(wall: float, busy: float) -> int:
    """How many threads share accesses of which some took so many seconds by the clock and of processor time."""
    if wall < _LEAST_WAIT * busy:
        return 1
    return min(MOST_THREADS, max(1, round(wall / max(busy, 1e-9))))
