"""Subvolumes: which there are, and that sums of blocks are what selecting the trajectories gives."""

import tracemalloc

import numpy as np
import pytest

from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.subvolumes import Positions, subvolume_vectors, subvolumes
from han_core.baselines.fisher.vector import fisher_vector, improved, statistics
from han_core.errors import ClipError
from tests.han_core.baselines.fisher.made_up import chosen, drawn_from, some_mixture, some_positions

PARAMS = StackedParams()


def test_positions_are_mean_points_and_middle_frames():
    points = np.zeros((2, 16, 2), np.float32)
    points[0] = np.linspace(10, 40, 16)[:, None] * (1, 2)
    points[1] = (320, 240)
    found = Positions.of(points, np.array([0, 30], np.int32), width=320, height=240)
    np.testing.assert_allclose(found.centres, [[25 / 320, 50 / 240], [1, 1]])
    np.testing.assert_array_equal(found.middles, [7, 37])


def test_a_clip_of_180_frames_has_145():
    found = subvolumes(some_positions(50_000, 188), PARAMS)
    assert len(found) == 145
    assert {(s.x, s.y) for s in found[:-1]} == {((i, i + 2), (j, j + 2)) for i in range(3) for j in range(3)}
    lengths = [s.t[1] - s.t[0] for s in found[:-1]]
    assert (lengths.count(2), lengths.count(4)) == (11 * 9, 5 * 9)
    assert all(s.t[0] % ((s.t[1] - s.t[0]) // 2) == 0 for s in found[:-1])
    assert (found[-1].x, found[-1].y, found[-1].t) == ((0, 4), (0, 4), (0, 12))
    assert found[-1].trajectories == 50_000
    assert len(set(found)) == 145


def test_each_has_enough_trajectories_and_none_with_enough_is_missing():
    positions = some_positions(900, 150)
    found = subvolumes(positions, PARAMS)
    everywhere = subvolumes(positions, StackedParams(least=1))
    counts = {s: int(chosen(positions, s, PARAMS).sum()) for s in everywhere}
    assert all(s.trajectories == counts[s] for s in everywhere)
    assert set(found[:-1]) == {s for s in everywhere[:-1] if counts[s] >= 30}
    assert 2 < len(found) < len(everywhere)


@pytest.mark.parametrize(
    "params",
    [PARAMS, StackedParams(cells=3, span=3, frames=(8, 12), least=1), StackedParams(cells=5, span=1, frames=(40,))],
)
def test_sums_of_blocks_are_what_selecting_gives(params):
    mixture, positions = some_mixture(gaussians=4, d=3), some_positions(1500, 130)
    points = drawn_from(some_mixture(gaussians=4, d=3, seed=3), 1500)
    wanted = subvolumes(positions, params)
    found = list(subvolume_vectors(points, positions, wanted, mixture, params))
    assert len(found) == len(wanted) > 1
    for subvolume, vector in zip(wanted, found, strict=True):
        inside = points[chosen(positions, subvolume, params)]
        assert len(inside) == subvolume.trajectories
        np.testing.assert_allclose(vector, improved(fisher_vector(statistics(inside, mixture), mixture)), atol=2e-3)
        raw = fisher_vector(statistics(inside, mixture), mixture)
        length = np.abs(raw).sum(dtype=np.float64)
        np.testing.assert_allclose(np.sign(vector) * vector**2 * length, raw, atol=1e-5)


def test_some_of_them_are_as_among_all():
    mixture, positions, points = some_mixture(), some_positions(1500, 130), drawn_from(some_mixture(seed=3), 1500)
    wanted = subvolumes(positions, PARAMS)
    everything = list(subvolume_vectors(points, positions, wanted, mixture, PARAMS))
    for which in ([3, 40, len(wanted) - 1], [len(wanted) - 1], [50]):
        some = subvolume_vectors(points, positions, [wanted[i] for i in which], mixture, PARAMS)
        for place, vector in zip(which, some, strict=True):
            np.testing.assert_array_equal(vector, everything[place])


@pytest.mark.parametrize(("count", "frames"), [(25, 200), (500, 20), (1, 16)])
def test_a_clip_that_is_short_or_has_few_is_one(count, frames):
    mixture, positions, points = some_mixture(), some_positions(count, frames), drawn_from(some_mixture(seed=3), count)
    wanted = subvolumes(positions, PARAMS)
    assert len(wanted) == 1
    assert wanted[0].trajectories == count
    (found,) = subvolume_vectors(points, positions, wanted, mixture, PARAMS)
    np.testing.assert_allclose(found, improved(fisher_vector(statistics(points, mixture), mixture)), atol=1e-4)


def test_a_clip_without_trajectories_has_none():
    nothing = Positions(np.empty((0, 2), np.float32), np.empty(0, np.int64))
    assert subvolumes(nothing, PARAMS) == []
    assert list(subvolume_vectors(np.empty((0, 4), np.float32), nothing, [], some_mixture(), PARAMS)) == []


@pytest.mark.parametrize("frame", [-1, 1 << 31])
def test_an_impossible_frame_is_told(frame):
    with pytest.raises(ClipError, match="which no clip has"):
        subvolumes(Positions(np.zeros((2, 2), np.float32), np.array([20, frame])), PARAMS)


def test_a_long_clip_takes_no_more_memory():
    def peak(frames: int) -> int:
        positions, points = some_positions(frames, frames), drawn_from(some_mixture(16, 8, seed=3), frames)
        wanted = subvolumes(positions, StackedParams(least=1))
        mixture = some_mixture(16, 8)
        tracemalloc.start()
        for _ in subvolume_vectors(points, positions, wanted, mixture, StackedParams(least=1)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most - 3 * points.nbytes

    assert peak(4500) < 1.5 * peak(600)
