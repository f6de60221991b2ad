"""The fast path of HAN computes what the plain loop computes: values and gradients, dropout and all."""

import copy
import dataclasses
import itertools

import pytest
import torch

from han_core.cubes.sparse import SparseCubes
from han_core.han.config import HANConfig
from han_core.han.model import HAN

CONFIG = HANConfig(
    streams=("spatial", "temporal"), classes=4, channels=12, regions=9, lstm_size=10, layers=3, skip=2, dropout=0.4
)
FRAMES = 9


def make(config, dtype=torch.float64):
    torch.manual_seed(0)
    model = HAN(config)
    streams = len(config.streams)
    model.standardize(torch.rand(streams, config.channels), 0.5 + torch.rand(streams, config.channels))
    return model.to(dtype).train()


def sparse_cubes(config, clips=5, frames=FRAMES):
    torch.manual_seed(1)
    cubes = {s: torch.rand(clips, frames, config.channels, config.regions).half() for s in config.streams}
    return {s: cube * (torch.rand(cube.shape) < 0.3) for s, cube in cubes.items()}


def step(model, cubes, lengths=None, *, fast):
    """Logits, maps and all gradients of one training step, with the same dropout for the same seed."""
    model = copy.deepcopy(model)
    torch.manual_seed(5)
    output = model(cubes, lengths, fast=fast)
    loss = output.logits.square().sum() + (output.attention * torch.linspace(0, 1, CONFIG.regions).to(output[0])).sum()
    loss.backward()
    return output.logits, output.attention, {name: p.grad for name, p in model.named_parameters()}


def compare(one, other, **tolerance):
    torch.testing.assert_close(one[0], other[0], **tolerance)
    torch.testing.assert_close(one[1], other[1], **tolerance)
    assert one[2].keys() == other[2].keys()
    for name, gradient in one[2].items():
        torch.testing.assert_close(gradient, other[2][name], msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@pytest.mark.parametrize(
    ("attention", "initial", "layers"), list(itertools.product(["location", "uniform"], ["zeros", "mean"], [1, 3]))
)
def test_float64_equals_the_plain_loop(attention, initial, layers):
    config = dataclasses.replace(CONFIG, attention=attention, initial_state=initial, layers=layers)
    model = make(config)
    cubes = sparse_cubes(config)
    compare(step(model, cubes, fast=True), step(model, cubes, fast=False), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("streams", [("spatial",), ("spatial", "temporal")])
def test_clips_of_different_length(streams):
    config = dataclasses.replace(CONFIG, streams=streams)
    model = make(config)
    cubes, lengths = sparse_cubes(config), torch.tensor([9, 1, 4, 3, 8])
    compare(step(model, cubes, lengths, fast=True), step(model, cubes, lengths, fast=False), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention", ["location", "uniform", "content"])
def test_sparse_cubes_equal_dense_ones(attention):
    """In float32, where the sparse loops are used: other orders of summation, hence the tolerance."""
    config = dataclasses.replace(CONFIG, attention=attention, initial_state="mean")
    model = make(config, torch.float32)
    cubes = sparse_cubes(config)
    sparse = {s: SparseCubes.from_dense(cube).select([3, 0, 4]) for s, cube in cubes.items()}
    dense = {s: cube[[3, 0, 4]] for s, cube in cubes.items()}
    compare(step(model, sparse, fast=True), step(model, dense, fast=False), rtol=2e-4, atol=2e-5)


def test_products_in_bfloat16_are_close():
    """bfloat16 has 8 bits: each product is off by up to 0.4 %, and nine steps add up."""
    model = make(CONFIG, torch.float32)
    cubes = sparse_cubes(CONFIG)
    exact = step(model, cubes, fast=True)
    model.product_type = torch.bfloat16
    for fast in (True, False):
        logits, maps, gradients = step(model, cubes, fast=fast)
        assert (logits - exact[0]).abs().max() < 0.05 * exact[0].abs().max()
        assert (logits - exact[0]).abs().max() > 0, "the products were not in bfloat16"
        torch.testing.assert_close(maps, exact[1], rtol=0.02, atol=1e-3)
        for name, gradient in gradients.items():
            assert (gradient - exact[2][name]).norm() < 0.05 * exact[2][name].norm(), name


def test_dropout_of_a_share_is_the_share_of_the_dropout():
    """A batch spread over processes meets the same masks as in one process."""
    model = make(CONFIG)
    cubes = sparse_cubes(CONFIG)
    whole = step(model, cubes, fast=True)
    parts = []
    for rows in (slice(0, 3), slice(3, 5)):
        model.dropout.rows, model.dropout.batch = rows, 5
        parts.append(step(model, {s: cube[rows] for s, cube in cubes.items()}, fast=True))
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), whole[0])
    for name, gradient in whole[2].items():
        torch.testing.assert_close(parts[0][2][name] + parts[1][2][name], gradient)


def hidden(**changes):
    """A model that hides 40 % of the regions, and its cubes."""
    config = dataclasses.replace(CONFIG, region_dropout=0.4, **changes)
    return make(config), sparse_cubes(config)


@pytest.mark.parametrize(
    ("attention", "initial", "dropout"), list(itertools.product(["location", "uniform"], ["zeros", "mean"], [0, 0.4]))
)
def test_hidden_regions_are_those_of_the_plain_loop(attention, initial, dropout):
    model, cubes = hidden(attention=attention, initial_state=initial, dropout=dropout)
    fast, plain = step(model, cubes, fast=True), step(model, cubes, fast=False)
    compare(fast, plain, rtol=1e-10, atol=1e-12)
    assert 0.2 < (fast[1] == 0).double().mean() < 0.6, "none was hidden"


@pytest.mark.parametrize("attention", ["location", "uniform"])
def test_hidden_regions_of_sparse_cubes_are_those_of_dense_ones(attention):
    model, cubes = hidden(attention=attention)
    model.float()
    sparse = {s: SparseCubes.from_dense(cube) for s, cube in cubes.items()}
    compare(step(model, sparse, fast=True), step(model, cubes, fast=False), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("attention", ["location", "content", "uniform"])
def test_a_share_of_the_batch_meets_the_same_hidden_regions(attention, fast):
    model, cubes = hidden(attention=attention)
    whole = step(model, cubes, fast=fast)
    parts = []
    for rows in (slice(0, 3), slice(3, 5)):
        model.dropout.rows, model.dropout.batch = rows, 5
        parts.append(step(model, {s: cube[rows] for s, cube in cubes.items()}, fast=fast))
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), whole[1])
    for name, gradient in whole[2].items():
        torch.testing.assert_close(parts[0][2][name] + parts[1][2][name], gradient)


@pytest.mark.parametrize("fast", [True, False])
def test_the_first_map_is_uniform_over_the_regions_that_are_not_hidden(fast):
    """By h_0 = 0; at later frames it is the softmax of eq. 3 over them, which the next test computes by hand."""
    model, cubes = hidden()
    first = step(model, cubes, fast=fast)[1][:, 0]
    for row in first:
        kept = row > 0
        torch.testing.assert_close(row[kept], torch.full_like(row[kept], 1 / kept.sum().item()))
    assert len({tuple((row > 0).tolist()) for row in first}) > 1, "drawn for each clip"


@pytest.mark.parametrize("attention", ["location", "content"])
def test_a_map_is_that_without_hiding_renormalised_over_the_others(attention):
    model, _ = hidden(attention=attention, streams=("spatial",))
    h = torch.randn(5, CONFIG.lstm_size, dtype=torch.float64)
    cube = torch.randn(5, CONFIG.channels, CONFIG.regions, dtype=torch.float64)
    kept = torch.rand(5, CONFIG.regions) < 0.5
    kept[:, 2] = True
    whole = model.attention(h, [cube]) * kept
    torch.testing.assert_close(model.attention(h, [cube], kept), whole / whole.sum(dim=1, keepdim=True))


def test_regions_are_hidden_at_the_rate_and_never_all_of_them():
    dropout = make(dataclasses.replace(CONFIG, region_dropout=0.3)).dropout
    kept = dropout.kept_regions(40, 30, 50, torch.zeros(1))
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.02)
    again = dropout.kept_regions(40, 30, 50, torch.zeros(1))
    for one, other in ((kept[0], kept[1]), (kept[:, 0], kept[:, 1]), (kept, again)):  # frames, clips, batches
        assert (one != other).float().mean().item() == pytest.approx(2 * 0.3 * 0.7, abs=0.06)
    dropout.region_rate = 0.999
    assert dropout.kept_regions(40, 30, 4, torch.zeros(1)).sum(dim=2).min() == 1


def test_nothing_is_hidden_after_training_or_of_a_single_region():
    model, cubes = hidden(dropout=0)
    model.eval()
    assert torch.equal(model(cubes).logits, model(cubes).logits)
    assert (model(cubes).attention > 0).all()
    pooled = {s: cube.double().mean(dim=3, keepdim=True) for s, cube in cubes.items()}
    one = make(dataclasses.replace(CONFIG, attention="uniform", region_dropout=0.4))
    other = make(dataclasses.replace(CONFIG, attention="uniform"))
    for hiding, plain in zip(step(one, pooled, fast=True)[:2], step(other, pooled, fast=True)[:2], strict=True):
        assert torch.equal(hiding, plain), "the dropout of features is drawn as without"


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_of_the_share_of_clips_one_stream_is_silent_and_never_both(rate):
    dropout = make(dataclasses.replace(CONFIG, dropout=rate, stream_dropout=0.4)).dropout
    masks = torch.stack(dropout.masks_of_streams(2, 3, 4000, 50, torch.zeros(1)))  # (S, T, B, D)
    silent = (masks == 0).all(dim=3)
    assert (silent == silent[:, :1]).all(), "of a clip in all frames or in none"
    silent = silent[:, 0].float()
    assert silent.sum(dim=0).max() == 1
    assert silent.mean(dim=1).tolist() == pytest.approx([0.2, 0.2], abs=0.03)
    assert masks.max() == 1 / (1 - rate)
    assert dropout.masks_of_streams(1, 3, 4, 5, torch.zeros(1))[0] is None or rate
    dropout.eval()
    assert dropout.masks_of_streams(2, 3, 4, 5, torch.zeros(1)) == [None, None]


@pytest.mark.parametrize("attention", ["location", "uniform"])
def test_what_a_silent_stream_shows_changes_nothing(attention):
    config = dataclasses.replace(CONFIG, dropout=0, stream_dropout=1.0, attention=attention)
    model = make(config).train()
    cubes = {s: torch.rand(6, 6, config.channels, config.regions, dtype=torch.float64) for s in config.streams}
    for fast in (False, True):
        torch.manual_seed(5)
        before = model(cubes, fast=fast).logits
        changed = 0
        for stream in config.streams:
            torch.manual_seed(5)
            after = model(cubes | {stream: cubes[stream] + 1}, fast=fast).logits
            same = (after == before).all(dim=1)
            changed = changed + (~same).int()
        assert changed.tolist() == [1] * 6, "each clip has one stream that is heard"


def test_streams_fall_silent_alike_in_several_processes():
    whole = make(dataclasses.replace(CONFIG, stream_dropout=0.5)).dropout
    torch.manual_seed(3)
    expected = torch.stack(whole.masks_of_streams(2, 4, 9, 7, torch.zeros(1)))
    whole.rows, whole.batch = slice(2, 5), 9
    torch.manual_seed(3)
    assert torch.equal(torch.stack(whole.masks_of_streams(2, 4, 3, 7, torch.zeros(1))), expected[:, :, 2:5])


def test_dropout_drops_the_share_it_should():
    model = make(dataclasses.replace(CONFIG, dropout=0.25))
    masks = model.dropout.masks(50, 20, 30, torch.zeros(1))
    assert masks.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (masks == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert model.eval().dropout.masks(1, 1, 1, torch.zeros(1)) is None
