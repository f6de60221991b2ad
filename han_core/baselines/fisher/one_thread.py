"""Linear algebra whose last bits would depend on the threads of BLAS, done by one of them.

Large products in float32 come out alike with any number of threads where the length that is summed over is a multiple
of 256 and neither factor is a single row; this package fills up what it multiplies. Decompositions, and products in
float64, do not (measured with OpenBLAS).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

_alone = threading.RLock()  # the number of threads is the process's, so two must not set it at a time


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS has one thread in here; other threads that come to this wait.

    Within somebody else's ``threadpool_limits`` it has as many as that says.
    """
    with _alone, threadpool_limits(1, "blas"):
        yield


def eigenvectors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n,), largest first, and unit eigenvectors (n, n), a row each, of a symmetric matrix in float64."""
    with one_thread():
        values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors.T[::-1]
