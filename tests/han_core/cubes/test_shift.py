"""Cubes that are moved within their frames."""

import numpy as np
import pytest
import torch

from han_core.cubes.shift import shifted
from han_core.cubes.sparse import SparseCubes

CLIPS, FRAMES, CHANNELS = 5, 3, 4
OFFSETS = torch.tensor([[0, 0], [1, 0], [0, -2], [-1, 2], [2, 1]])


def cubes(side):
    random = np.random.default_rng(side)
    values = random.normal(size=(CLIPS, FRAMES, CHANNELS, side * side)).astype(np.float16)
    values[random.random(values.shape) < 0.6] = 0
    return torch.from_numpy(values)


def expected(values, side):
    """Region by region."""
    moved = torch.zeros_like(values)
    for clip, (x, y) in enumerate(OFFSETS.tolist()):
        for line in range(side):
            for column in range(side):
                if 0 <= line + y < side and 0 <= column + x < side:
                    moved[clip, ..., (line + y) * side + column + x] = values[clip, ..., line * side + column]
    return moved


@pytest.mark.parametrize("side", [3, 5, 14, 17])
def test_sparse_and_dense_cubes_move_alike(side):
    values = cubes(side)
    assert torch.equal(shifted(values, OFFSETS), expected(values, side))
    sparse = shifted(SparseCubes.from_dense(values), OFFSETS)
    assert isinstance(sparse, SparseCubes)
    assert torch.equal(sparse.dense(torch.float16), expected(values, side))
    weights = torch.softmax(torch.randn(CLIPS, side * side), dim=1)
    wanted = torch.einsum("bdr,br->bd", expected(values, side)[:, 1].float(), weights)
    torch.testing.assert_close(sparse.glimpse(1, weights), wanted, atol=1e-3, rtol=1e-3)


def test_a_batch_out_of_many_clips_moves_its_own_and_leaves_the_store_as_it_was():
    values = cubes(5)
    store = SparseCubes.from_dense(values)
    batch = store.select([3, 0])
    moved = shifted(batch, OFFSETS[[3, 0]])
    assert torch.equal(moved.dense(torch.float16), expected(values, 5)[[3, 0]])
    assert torch.equal(store.dense(torch.float16), values)


def test_features_without_a_place_stay_and_other_maps_are_refused():
    values = torch.rand(CLIPS, FRAMES, CHANNELS, 1)
    assert shifted(values, OFFSETS) is values
    with pytest.raises(ValueError, match="6 regions are not those of a square map"):
        shifted(torch.rand(CLIPS, FRAMES, CHANNELS, 6), OFFSETS)
