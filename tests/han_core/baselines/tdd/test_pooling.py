"""Sums along tracks, against loops over points in float64, and the two normalisations by hand."""

import numpy as np
import pytest
import torch

from han_core.baselines.tdd.pooling import PooledMaps
from han_core.baselines.tdd.tracks import Tracks
from han_core.errors import ClipError

ROWS, COLUMNS, CHANNELS, FRAMES, LENGTH = 3, 4, 5, 12, 6


def made_up(count=20, seed=1, frames=FRAMES) -> tuple[np.ndarray, Tracks]:
    """Maps (frames, rows, columns, channels), many of them 0 as after a ReLU, and tracks that wander over 40x30."""
    random = np.random.default_rng(seed)
    maps = np.maximum(random.standard_normal((frames, ROWS, COLUMNS, CHANNELS)), 0).astype(np.float32)
    points = random.uniform(-1, 41, (count, LENGTH, 2)).astype(np.float32)
    return maps, Tracks(points, random.integers(0, frames - LENGTH + 1, count), 40, 30)


def pooled(maps: np.ndarray, tracks: Tracks) -> dict[str, np.ndarray]:
    found = PooledMaps(tracks, *maps.shape[1:])
    for frame, one in enumerate(maps):
        found.add(torch.from_numpy(one), [frame])
    return {name: values.numpy() for name, values in found.descriptors().items()}


def by_loop(maps: np.ndarray, tracks: Tracks, *, first: bool) -> dict[str, np.ndarray]:
    """As the paper writes it: normalise all maps (``first``; else st afterwards), then sum point by point."""
    maps = maps.astype(np.float64)
    largest = maps.max((0, 1, 2))
    divided = {
        "st": maps / np.where(largest > 0, largest, 1) if first else maps,
        "ch": maps / np.where(maps.max(3, keepdims=True) > 0, maps.max(3, keepdims=True), 1),
    }
    sums = {name: np.zeros((len(tracks), maps.shape[3])) for name in divided}
    for name, values in divided.items():
        for i in range(len(tracks)):
            for step in range(tracks.length):
                x, y = tracks.points[i, step].astype(float)
                row = min(max(int(np.floor((y + 0.5) / 10)), 0), ROWS - 1)
                column = min(max(int(np.floor((x + 0.5) / 10)), 0), COLUMNS - 1)
                sums[name][i] += values[tracks.start[i] + step, row, column]
    if not first:
        sums["st"] /= np.where(largest > 0, largest, 1)
    return {name: np.sqrt(values) for name, values in sums.items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_are_those_of_a_loop(seed):
    maps, tracks = made_up(seed=seed)
    found = pooled(maps, tracks)
    expected = by_loop(maps, tracks, first=True)
    for name in ("st", "ch"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-7)


def test_dividing_by_the_maxima_over_space_and_time_may_come_after_the_sum():
    maps, tracks = made_up()
    before, after = (by_loop(maps, tracks, first=first)["st"] for first in (True, False))
    np.testing.assert_allclose(after, before, rtol=1e-14)
    np.testing.assert_allclose(pooled(maps, tracks)["st"], before, rtol=1e-6)


def test_constant_maps_give_15_times_the_constant():
    """Normalised they are 1 everywhere under st; under ch each channel by the largest of its place."""
    tracks = Tracks(np.zeros((4, 15, 2), np.float32), np.arange(4), 40, 30)
    maps = np.tile(np.array([1, 2, 4, 0, 8], np.float32), (18, ROWS, COLUMNS, 1))
    found = pooled(maps, tracks)
    np.testing.assert_allclose(found["st"] ** 2, 4 * [[15, 15, 15, 0, 15]], rtol=1e-6)
    np.testing.assert_allclose(found["ch"] ** 2, np.array([[1, 2, 4, 0, 8]] * 4) * 15 / 8, rtol=1e-6)


def test_a_hot_cell_counts_the_steps_that_are_in_it():
    points = np.full((1, 15, 2), 35.0, np.float32)
    points[0, 4:9] = (15, 5)  # five steps in row 0, column 1
    maps = np.zeros((20, ROWS, COLUMNS, CHANNELS), np.float32)
    maps[:, 0, 1, 2] = 7
    found = pooled(maps, Tracks(points, np.array([3]), 40, 30))
    for name in ("st", "ch"):
        np.testing.assert_allclose(found[name] ** 2, [[0, 0, 5, 0, 0]], rtol=1e-6)
    maps[:7] = 0  # the track is there from frame 7 on
    np.testing.assert_allclose(pooled(maps, Tracks(points, np.array([3]), 40, 30))["st"] ** 2, [[0, 0, 5, 0, 0]])
    maps[:8] = 0
    np.testing.assert_allclose(
        pooled(maps, Tracks(points, np.array([3]), 40, 30))["st"] ** 2, [[0, 0, 4, 0, 0]], rtol=1e-6
    )


def test_normalisation_by_hand():
    maps = np.zeros((2, 1, 2, 3), np.float32)
    maps[0, 0] = [[1, 2, 0], [4, 0, 0]]
    maps[1, 0] = [[3, 6, 0], [0, 0, 0]]
    stays, moves = [[0, 0], [0, 0]], [[15, 0], [0, 0]]
    tracks = Tracks(np.array([stays, moves], np.float32), np.array([0, 0]), 20, 10)
    found = pooled(maps, tracks)
    # st: maxima 4, 6, 0. stays: (1 + 3, 2 + 6, 0); moves: (4 + 3, 0 + 6, 0)
    np.testing.assert_allclose(found["st"] ** 2, [[4 / 4, 8 / 6, 0], [7 / 4, 6 / 6, 0]], rtol=1e-6)
    # ch: places divided by 2 and 6; by 4 and 6
    np.testing.assert_allclose(found["ch"] ** 2, [[1 / 2 + 3 / 6, 2, 0], [1 + 3 / 6, 1, 0]], rtol=1e-6)


def test_maps_can_serve_several_frames():
    maps, tracks = made_up()
    repeated = maps[::3].repeat(3, axis=0)
    found = PooledMaps(tracks, ROWS, COLUMNS, CHANNELS)
    for number, one in enumerate(maps[::3]):
        found.add(torch.from_numpy(one), range(3 * number, 3 * number + 3))
    for name, values in found.descriptors().items():
        np.testing.assert_array_equal(values.numpy(), pooled(repeated, tracks)[name])


def test_bfloat16_maps_are_summed_in_float32():
    maps, tracks = made_up()
    rough = torch.from_numpy(maps).bfloat16()
    found = PooledMaps(tracks, ROWS, COLUMNS, CHANNELS)
    for frame, one in enumerate(rough):
        found.add(one, [frame])
    expected = pooled(rough.float().numpy(), tracks)
    for name, values in found.descriptors().items():
        np.testing.assert_array_equal(values.numpy(), expected[name])


def test_nothing_but_zeros_and_no_tracks_are_no_division_by_0():
    maps, tracks = made_up()
    for values in pooled(np.zeros_like(maps), tracks).values():
        assert not values.any()
        assert values.shape == (20, CHANNELS)
    assert pooled(maps, tracks.take(np.arange(0)))["ch"].shape == (0, CHANNELS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_an_error(value):
    maps, tracks = made_up()
    maps[5, 0, 0, 3] = value
    with pytest.raises(ClipError, match="not finite"):
        pooled(maps, tracks)


def test_maps_of_another_shape_are_refused():
    _, tracks = made_up()
    with pytest.raises(ValueError, match="shape"):
        PooledMaps(tracks, ROWS, COLUMNS, CHANNELS).add(torch.zeros(COLUMNS, ROWS, CHANNELS), [0])
