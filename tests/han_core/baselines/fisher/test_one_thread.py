"""Linear algebra by one thread of BLAS."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from han_core.baselines.fisher.one_thread import eigenvectors, one_thread


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_there_is_one_and_then_as_many_as_before():
    with threadpool_limits(3, "blas"):
        with one_thread(), one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {3}


def test_however_many_ask_for_it():
    def ask(_: int) -> set[int]:
        with one_thread():
            return blas_threads()

    before = blas_threads()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(12))) == [{1}] * 12
    assert blas_threads() == before


def test_eigenvectors_are_sorted_and_of_the_same_bytes_with_any_number_of_threads():
    factors = np.random.default_rng(0).standard_normal((900, 396))
    matrix = factors.T @ factors
    found = set()
    for threads in (1, 2, 4):
        with threadpool_limits(threads, "blas"):
            values, vectors = eigenvectors(matrix)
            found.add(values.tobytes() + vectors.tobytes())
    assert len(found) == 1
    assert (np.diff(values) < 0).all()
    np.testing.assert_allclose(vectors @ matrix, values[:, None] * vectors, atol=1e-9 * values[0])
