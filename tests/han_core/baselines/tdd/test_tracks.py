"""Which points count, and which cell of a map each belongs to."""

import numpy as np
import pytest

from han_core.baselines.tdd.tracks import Tracks, TracksError


def tracks(points, start=(0,), width=320, height=240) -> Tracks:
    return Tracks(np.asarray(points, np.float32), np.asarray(start), width, height)


def test_only_the_original_scale_and_the_points_before_the_last():
    points = np.arange(3 * 16 * 2, dtype=np.float32).reshape(3, 16, 2)
    found = Tracks.of(points, np.array([4, 5, 6], np.int32), np.array([0, 1, 0], np.uint8), width=320, height=240)
    np.testing.assert_array_equal(found.points, points[[0, 2], :15])
    assert found.start.tolist() == [4, 6]
    assert (len(found), found.length) == (2, 15)


@pytest.mark.parametrize(("stride", "grid"), [(8, (30, 40)), (16, (15, 20))])
def test_the_cell_of_a_whole_pixel_is_floor_of_x_over_the_stride(stride, grid):
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    every = np.stack([x.ravel(), y.ravel()], axis=1)[:, None]
    expected = (y // stride * grid[1] + x // stride).reshape(-1, 1)
    np.testing.assert_array_equal(tracks(every, np.zeros(len(every))).cells(*grid), expected)


@pytest.mark.parametrize("grid", [(15, 20), (18, 25), (7, 9)])
def test_the_cell_is_the_one_whose_centre_is_nearest_whatever_the_size_of_the_input(grid):
    """Pixel centres of the input are whole numbers; cell j of stride s has its centre at s j + (s - 1) / 2."""
    random = np.random.default_rng(1)
    points = random.uniform((-0.5, -0.5), (319.5, 239.5), (500, 1, 2)).astype(np.float32)
    stride, cells = 16, []
    for axis, (length, count) in enumerate(((320, grid[1]), (240, grid[0]))):
        in_the_input = (points[:, 0, axis].astype(np.float64) + 0.5) * stride * count / length - 0.5
        centres = stride * np.arange(count) + (stride - 1) / 2
        cells.append(np.abs(in_the_input[:, None] - centres).argmin(1))
    np.testing.assert_array_equal(tracks(points, np.zeros(500)).cells(*grid)[:, 0], cells[1] * grid[1] + cells[0])


def test_points_beyond_the_image_belong_to_the_outermost_cells():
    found = tracks([[[-3, -3], [330, -1], [-1, 250], [319.9, 239.9]]]).cells(15, 20)
    assert found.tolist() == [[0, 19, 280, 299]]


def test_a_picture_scaled_by_2_has_the_same_cells():
    points = np.random.default_rng(2).uniform(0, 60, (50, 15, 2)).astype(np.float32)
    once = tracks(points, np.zeros(50), 64, 64)
    twice = tracks(2 * points + 0.5, np.zeros(50), 128, 128)  # the centre of pixel x lies at 2 (x + 1/2) - 1/2
    np.testing.assert_array_equal(once.cells(4, 4), twice.cells(4, 4))


def test_tracks_cross_the_frames_from_their_start_on():
    start = np.array([3, 0, 7, 3, 1])
    found = tracks(np.zeros((5, 4, 2)), start)
    for frame in range(12):
        which, step = found.crossing(frame)
        assert sorted(which.tolist()) == [i for i, s in enumerate(start.tolist()) if s <= frame < s + 4]
        assert (start[which] + step == frame).all()


def test_some_are_taken():
    found = tracks(np.arange(24).reshape(3, 4, 2), [5, 1, 9]).take(np.array([2, 0]))
    assert found.start.tolist() == [9, 5]
    assert found.points[0, 0].tolist() == [16, 17]


def test_a_track_beyond_the_clip_is_an_error():
    found = tracks(np.zeros((2, 15, 2)), [0, 5])
    found.check(20)
    with pytest.raises(TracksError, match=r"frames 0 to 19, but the clip has frames 0 to 18.* run stage trajectories"):
        found.check(19)
    with pytest.raises(TracksError, match="frames -1 to 13"):
        tracks(np.zeros((1, 15, 2)), [-1]).check(20)
    tracks(np.zeros((0, 15, 2)), []).check(3)
