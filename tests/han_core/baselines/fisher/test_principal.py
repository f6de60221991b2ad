"""Principal directions of rows on disk, against a decomposition in memory."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from threadpoolctl import threadpool_limits

from han_core.baselines.fisher import principal as module
from han_core.baselines.fisher.principal import principal_directions
from han_core.baselines.fisher.row_store import RowStore


def some_rows(path, count: int, length: int, rank: int, falling: float = 1.3) -> tuple[RowStore, np.ndarray]:
    random = np.random.default_rng(0)
    values = (
        random.standard_normal((count, rank)) * falling ** -np.arange(rank) @ random.standard_normal((rank, length))
    )
    store = RowStore(path, length)
    for row in values / 30 + 0.5:
        store.append(row)
    return store, store.rows(np.arange(count)).astype(np.float64)


def test_they_are_those_of_a_decomposition(tmp_path):
    store, values = some_rows(tmp_path / "r", 700, 300, 40)
    with store:
        found = principal_directions(store, np.arange(700), 8, seed=1)
    _, _, expected = np.linalg.svd(values - values.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs((found * expected[:8]).sum(1)), 1, atol=1e-4)
    np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)
    assert (found[np.arange(8), np.abs(found).argmax(1)] > 0).all()


def test_only_the_rows_asked_for_count(tmp_path):
    store, values = some_rows(tmp_path / "r", 700, 60, 40)
    chosen = np.random.default_rng(1).choice(700, 90, replace=False)
    with store:
        found = principal_directions(store, chosen, 5, seed=1)
    _, _, expected = np.linalg.svd(values[chosen] - values[chosen].mean(0), full_matrices=False)
    assert np.rad2deg(subspace_angles(found.T, expected[:5].T)).max() < 1


@pytest.mark.parametrize(("count", "rank", "directions"), [(5, 9, 4), (50, 3, 3), (1, 1, 0), (20, 0, 0)])
def test_rows_of_fewer_directions_leave_the_rest_0(tmp_path, count, rank, directions):
    with RowStore(tmp_path / "s", 50) as store:
        # Few directions, and exact in float16.
        basis = np.eye(50)[:rank]
        for number in range(count):
            store.append(np.round(np.random.default_rng(number).standard_normal(rank) * 8) @ basis + 1)
        found = principal_directions(store, np.arange(count), 10, seed=1)
    assert found.shape == (10, 50)
    lengths = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(lengths, [1] * directions + [0] * (10 - directions), atol=1e-4)


def test_more_than_there_are_dimensions(tmp_path):
    store, _ = some_rows(tmp_path / "r", 100, 6, 6)
    with store:
        found = principal_directions(store, np.arange(100), 8, seed=1)
    np.testing.assert_allclose(found[:6] @ found[:6].T, np.eye(6), atol=1e-4)
    assert not found[6:].any()


def test_directions_are_orthonormal_however_nearly_parallel_they_are():
    random = np.random.default_rng(0)
    nearly = random.standard_normal((1, 400)) + 1e-4 * random.standard_normal((20, 400))
    found = module._orthonormal(nearly.astype(np.float32))
    np.testing.assert_allclose(found @ found.T, np.eye(20), atol=1e-5)


def test_the_same_bytes_with_any_number_of_threads(tmp_path):
    store, _ = some_rows(tmp_path / "r", 300, 3072, 60)
    made = []
    with store:
        for threads in (1, 2, 4):
            with threadpool_limits(threads, "blas"):
                directions = principal_directions(store, np.arange(300), 40, seed=1)
                # In float32, in which directions are, differences would show only now and then.
                products = module._inner_products(store.rows(np.arange(210)))
                made.append(directions.tobytes() + products.tobytes())
    assert len(set(made)) == 1
