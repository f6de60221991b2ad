"""Sparse cubes are the dense ones: bit by bit when expanded, to rounding when multiplied."""

import numpy as np
import pytest
import scipy.sparse
import torch

from han_core.cubes import sparse_torch
from han_core.cubes.sparse import SparseCubes
from han_core.cubes.sparse_rows import SparseRows


def cubes(regions=6, clips=5, frames=4, channels=7, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(clips, frames, channels, regions)).astype(np.float16)
    return torch.from_numpy(np.where(rng.random(dense.shape) < density, dense, np.float16(0)))


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("regions", [1, 196, 255, 256, 300])
@pytest.mark.parametrize("density", [0.0, 0.06, 1.0])
def test_every_bit_survives(regions, density):
    dense = cubes(regions, density=density)
    if density:
        dense.view(-1)[:3] = torch.tensor([-0.0, float("inf"), float("nan")], dtype=torch.float16)
    for clip in dense.numpy():
        rows = SparseRows.from_dense(clip)
        np.testing.assert_array_equal(rows.dense().view(np.uint16), clip.view(np.uint16))
        assert len(rows.values) == (clip.view(np.uint16) != 0).sum()


def test_the_layout_is_scipys():
    clip = cubes(clips=1)[0].numpy()
    rows = SparseRows.from_dense(clip)
    expected = scipy.sparse.csr_matrix(clip.reshape(-1, 6).astype(np.float32))
    np.testing.assert_array_equal(rows.columns, expected.indices)
    np.testing.assert_array_equal(rows.values, expected.data)
    np.testing.assert_array_equal(rows.counts.reshape(-1), np.diff(expected.indptr))


def test_expanding_a_batch(threads):
    dense = cubes()
    sparse = SparseCubes.from_dense(dense)
    assert sparse.shape == dense.shape
    for chosen in ([0, 1, 2, 3, 4], [3, 1], [2, 2, 4]):
        part = sparse.select(chosen)
        assert torch.equal(part.dense(), dense[chosen].float())
        assert torch.equal(part.dense(torch.float16), dense[chosen])
        assert torch.equal(sparse_torch.expanded(part, torch.float32), dense[chosen].float())
    assert torch.equal(sparse.select([4, 2, 0]).select([1]).dense(), dense[[2]].float())


def test_products_equal_those_of_the_dense_cubes(threads):
    dense = cubes(regions=196, channels=40).double()
    sparse = SparseCubes.from_dense(dense.half())
    chosen = [4, 0, 2]
    part = sparse.select(chosen)
    weights, gradient = torch.rand(3, 196), torch.randn(3, 40)
    for t in range(4):
        cube = dense[chosen][:, t]
        glimpse = torch.einsum("bdr,br->bd", cube, weights.double())
        torch.testing.assert_close(part.glimpse(t, weights).double(), glimpse, rtol=1e-5, atol=1e-5)
        regions = torch.einsum("bdr,bd->br", cube, gradient.double())
        torch.testing.assert_close(part.regions_of(t, gradient).double(), regions, rtol=1e-5, atol=1e-5)
    mean, square = part.moments()
    torch.testing.assert_close(mean.double(), dense[chosen].mean(3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(square.double(), dense[chosen].square().mean(3), rtol=1e-5, atol=1e-6)


def test_memory_is_what_is_said():
    sparse = SparseCubes.from_dense(cubes(regions=196, density=0.1))
    count = int((cubes(regions=196, density=0.1) != 0).sum())
    assert sparse.bytes == 3 * count + 5 * 4 * 7 + 8 * 5 * 4
