"""Linear algebra that gives the same bytes with any number of threads, and on machines that differ in their cores.

How a product is cut up among BLAS's own threads decides its last bits, in a way that differs from processor to
processor. So BLAS has one thread here, and what is large is cut up into parts of a fixed size, which threads of ours
take, as many as there are cores.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from han_core.devices import cores

Part = TypeVar("Part")
Result = TypeVar("Result")

_COLUMNS = 8192
"""Of a part of a product: with a few hundred rows in float32, some megabytes."""
_AHEAD = 4
"""Parts for each thread whose results may wait for those before them."""


class _Limit:
    """BLAS's number of threads, which is the process's, and who relies on its being one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limits: threadpool_limits | None = None

    def take(self) -> None:
        with self._lock:
            if not self._users:
                self._limits = threadpool_limits(1, "blas")
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._limits is not None:
                self._limits.restore_original_limits()


_limit = _Limit()


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS has one thread in here, in all threads of the process; afterwards as many as before."""
    _limit.take()
    try:
        yield
    finally:
        _limit.leave()


def in_order(work: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
    """What ``work`` gives for each part, in the order of the parts, computed by as many threads as there are cores, of
    which BLAS has one each."""
    threads = min(cores(), len(parts))
    with one_thread():
        if threads < 2:
            yield from map(work, parts)
            return
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(parts), _AHEAD * threads):
                yield from pool.map(work, parts[start : start + _AHEAD * threads])


def times(factor: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """``factor @ wide``, (m, n) by (n, D)."""
    found = np.empty((len(factor), wide.shape[1]), np.result_type(factor, wide))

    def part(columns: slice) -> None:
        found[:, columns] = factor @ wide[:, columns]

    for _ in in_order(part, _parts(wide)):
        pass
    return found


def inner(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``one @ other.T``, (m, D) by (n, D)."""
    parts = in_order(lambda columns: one[:, columns] @ other[:, columns].T, _parts(one))
    found = next(parts)
    for more in parts:
        found += more
    return found


def _parts(wide: np.ndarray) -> list[slice]:
    return [slice(start, start + _COLUMNS) for start in range(0, max(1, wide.shape[1]), _COLUMNS)]


def eigenvectors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n,), largest first, and unit eigenvectors (n, n), a row each, of a symmetric matrix in float64."""
    with one_thread():
        values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors.T[::-1]
