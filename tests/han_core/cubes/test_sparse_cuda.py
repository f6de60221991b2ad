"""The Triton kernels for sparse cubes: their numbers under Triton's interpreter, what they need of a GPU, and on it."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import triton

from han_core.cubes import sparse_cuda
from han_core.cubes.shift import shifted
from han_core.cubes.sparse import SparseCubes
from tests.compiled import CAPABILITIES, Needs, compiling_for, needs_of
from tests.interpreted import interpreted
from tests.stubbed_kernels import compiled_at_launch

TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}
"""Sums of up to 300 products in float32, in another order."""


def cubes(regions, channels, *, clips=3, frames=2, density=0.2, seed=0):
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(clips, frames, channels, regions)).astype(np.float16)
    dense[rng.random(dense.shape) > density] = 0
    dense[0, 0, channels // 2] = 1.0  # a full row among sparse ones,
    dense[1, 0] = 0.0  # a frame without any,
    dense[:, :, :, 0] = 0.0  # and an empty column
    return torch.from_numpy(dense)


SIZES = [(1, 5), (49, 70), (196, 33), (300, 40), (9, 300)]
"""Regions and channels: one region; 49 and 196; counts and columns of 16 bits by channel, and by region."""


@pytest.mark.parametrize(("regions", "channels"), SIZES)
def test_products_of_a_batch_are_those_of_the_dense_cubes(regions, channels):
    dense = cubes(regions, channels)
    store = SparseCubes.from_dense(dense)
    chosen = [2, 0]
    batch = store.with_across().select(chosen)
    alone = store.select(chosen)
    weights, gradient = torch.rand(2, regions), torch.randn(2, channels)
    frame = dense[chosen][:, 1].float()
    back = torch.einsum("bdr,bd->br", frame, gradient)
    with interpreted(sparse_cuda):
        torch.testing.assert_close(batch.glimpse(1, weights), torch.einsum("bdr,br->bd", frame, weights), **TOLERANCE)
        for one in (batch, alone):
            torch.testing.assert_close(one.regions_of(1, gradient), back, **TOLERANCE)
        assert torch.equal(batch.dense(torch.float16), dense[chosen])
        torch.testing.assert_close(batch.means(), dense[chosen].float().mean(dim=3), **TOLERANCE)


@pytest.mark.parametrize("across", [True, False])
def test_glimpses_are_standardised_and_dropped_where_an_lstm_reads_them(across):
    dense = cubes(49, 40)
    store = SparseCubes.from_dense(dense)
    store = store.with_across() if across else store
    scale, shift, mask = torch.rand(40), torch.randn(40), (torch.rand(3, 40) > 0.5) * 2.0
    weights, gradient = torch.rand(1, 3, 49), torch.randn(3, 60)[:, :40]
    before = torch.randn(3, 49)
    out, back = torch.full((1, 3, 50), 7.0), before.clone()
    with interpreted(sparse_cuda):
        sparse_cuda.glimpse_into(out[:, :, :40], store, 1, weights, scale=scale, shift=shift, mask=mask)
        sparse_cuda.regions_into(back, store, 1, gradient, scale=scale, mask=mask)
    frame = dense[:, 1].float()
    expected = (torch.einsum("bdr,br->bd", frame, weights[0]) * scale + shift) * mask
    torch.testing.assert_close(out[0, :, :40], expected, **TOLERANCE)
    assert (out[:, :, 40:] == 7).all(), "nothing beside its place is written"
    torch.testing.assert_close(back, before + torch.einsum("bdr,bd->br", frame, gradient * scale * mask), **TOLERANCE)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("side", [3, 14])
def test_shifted_cubes_are_those_that_were_moved(side, across):
    dense = cubes(side * side, 6)
    offsets = torch.tensor([[1, -2], [0, 0], [-1, 0]])
    moved = shifted(dense, offsets)
    store = SparseCubes.from_dense(dense)
    store = store.with_across() if across else store
    weights, gradient = torch.rand(3, side * side), torch.randn(3, 6)
    with interpreted(sparse_cuda):
        batch = shifted(store, offsets)
        assert batch.values is store.values, "nothing is copied"
        glimpse, back = batch.glimpse(1, weights), batch.regions_of(1, gradient)
        assert torch.equal(batch.dense(torch.float16), moved)
        means = batch.means()
    frame = moved[:, 1].float()
    torch.testing.assert_close(glimpse, torch.einsum("bdr,br->bd", frame, weights), **TOLERANCE)
    torch.testing.assert_close(back, torch.einsum("bdr,bd->br", frame, gradient), **TOLERANCE)
    torch.testing.assert_close(means, moved.float().mean(dim=3), **TOLERANCE)


@pytest.mark.parametrize(("regions", "channels"), SIZES)
def test_the_transposed_copy_is_that_of_the_transposed_cubes(regions, channels, monkeypatch):
    monkeypatch.setattr("han_core.cubes.sparse_torch.AT_ONCE", 2)
    dense = cubes(regions, channels)
    across = SparseCubes.from_dense(dense).with_across().across
    expected = SparseCubes.from_dense(dense.transpose(2, 3).contiguous())
    for name in ("counts", "columns", "values", "starts"):
        assert torch.equal(getattr(across, name), getattr(expected, name)), name
        assert getattr(across, name).dtype == getattr(expected, name).dtype


NEEDS = {
    "glimpse_kernel": Needs(registers=56, spilled=0, shared=128),
    "regions_kernel": Needs(registers=80, spilled=0, shared=128),
    "expand_kernel": Needs(registers=64, spilled=0, shared=128),
    "dense_regions_kernel": Needs(registers=96, spilled=0, shared=512),
}
"""Of Triton 3.9, for either capability, of a block of 128 threads."""


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile_for_gpus_that_are_not_here(capability):
    """With the sizes of VGG-16's cubes."""
    meta, (batch, frames, channels, regions) = torch.device("meta"), (128, 25, 512, 196)
    rows = SparseCubes.empty(batch, frames, channels, regions, 10**6, device=meta)
    across = SparseCubes.empty(batch, frames, regions, channels, 10**6, device=meta)
    store = SparseCubes(rows.counts, rows.columns, rows.values, rows.starts, rows.clips, regions, across)
    alone = SparseCubes(rows.counts, rows.columns, rows.values, rows.starts, rows.clips, regions)
    new = lambda *shape: torch.empty(shape, device=meta)  # noqa: E731
    maps, inputs, mask = new(1, batch, regions), new(1, batch, channels + 1024), new(batch, channels)
    scale, shift = new(channels), new(channels)
    with compiling_for(capability), compiled_at_launch(sparse_cuda) as kernels:
        sparse_cuda.glimpse_into(inputs[:, :, :channels], store, 0, maps, scale=scale, shift=shift, mask=mask)
        for cubes in (store, alone):
            sparse_cuda.regions_into(maps[0], cubes, 0, inputs[0, :, :channels], scale=scale, mask=mask)
        found = {name: needs_of(kernel) for name, kernel in kernels.items()}
    assert found.keys() == NEEDS.keys()
    assert all(needs.spilled == 0 for needs in found.values())
    if triton.__version__.startswith("3.9."):
        assert found == NEEDS


@pytest.mark.gpu
@pytest.mark.parametrize(("regions", "channels"), [*SIZES, (196, 512)])
@pytest.mark.parametrize("across", [True, False])
def test_on_a_gpu_they_give_the_same_and_the_same_bits_each_time(gpu, regions, channels, across):
    dense = cubes(regions, channels, clips=7)
    store = SparseCubes.from_dense(dense).to(gpu)
    chosen = [6, 0, 3, 3]
    batch = (store.with_across() if across else store).select(chosen)
    weights, gradient = torch.rand(4, regions), torch.randn(4, channels)
    if across:
        expected = SparseCubes.from_dense(dense).with_across().across
        for name in ("counts", "columns", "values", "starts"):
            assert torch.equal(getattr(batch.across, name).cpu(), getattr(expected, name)), name
    for t in range(2):
        glimpse, back = batch.glimpse(t, weights.to(gpu)), batch.regions_of(t, gradient.to(gpu))
        frame = dense[chosen][:, t].float()
        torch.testing.assert_close(glimpse.cpu(), torch.einsum("bdr,br->bd", frame, weights), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(back.cpu(), torch.einsum("bdr,bd->br", frame, gradient), rtol=1e-4, atol=1e-4)
        assert torch.equal(glimpse, batch.glimpse(t, weights.to(gpu)))
        assert torch.equal(back, batch.regions_of(t, gradient.to(gpu)))
    assert torch.equal(batch.dense(torch.float16).cpu(), dense[chosen])


@pytest.mark.gpu
@pytest.mark.parametrize("across", [True, False])
def test_on_a_gpu_shifted_cubes_are_those_that_were_moved(gpu, across):
    dense = cubes(196, 40)
    offsets = torch.tensor([[1, -2], [0, 0], [-6, 6]])
    frame = shifted(dense, offsets)[:, 1].float()
    store = SparseCubes.from_dense(dense).to(gpu)
    batch = shifted(store.with_across() if across else store, offsets.to(gpu))
    weights, gradient = torch.rand(3, 196), torch.randn(3, 40)
    glimpse, back = batch.glimpse(1, weights.to(gpu)).cpu(), batch.regions_of(1, gradient.to(gpu)).cpu()
    torch.testing.assert_close(glimpse, torch.einsum("bdr,br->bd", frame, weights), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back, torch.einsum("bdr,bd->br", frame, gradient), rtol=1e-4, atol=1e-4)
    assert torch.equal(batch.dense(torch.float16).cpu(), shifted(dense, offsets))
    assert torch.equal(shifted(dense.to(gpu), offsets.to(gpu)).cpu(), shifted(dense, offsets))
