"""What a patch looks like, against sums over its pixels in float64; directions; borders."""

import numpy as np
import pytest

from han_core.baselines.trajectories import kernels
from han_core.baselines.trajectories.extract import quantized
from han_core.baselines.trajectories.trajectories import HISTOGRAMS
from tests.han_core.baselines.trajectories import reference
from tests.han_core.baselines.trajectories.scenes import constant, texture

BACK, DOWN = np.arange(4, -4, -1) % 8, -np.arange(8) % 8
"""Bins that directions become when x, or y, changes its sign."""


def described(grey, flow, places, patch=(32, 32), age=0) -> dict:
    """{channel: (n, 2, 2, bins)} of tracks at these places, that is the roots of the normalised histograms."""
    places = np.atleast_2d(np.asarray(places, np.float32))
    count = len(places)
    points = np.zeros((count, 16, 2), np.float32)
    points[:, age] = places
    values = np.zeros((count, 3, kernels.VALUES), np.float32)
    scratch = np.full(kernels.scratch_size(patch[0] // 2, grey.shape[1]), np.nan, np.float32)
    slots, ages = np.arange(count, dtype=np.int32), np.full(count, age, np.int32)
    flow = np.ascontiguousarray(flow, np.float32)
    kernels.describe(np.ascontiguousarray(grey), flow, patch, points, slots, ages, values, scratch)
    others = [t for t in range(3) if t != age // 5]
    assert not values[:, others].any(), "another cell in time"
    parts = np.split(values[:, age // 5], kernels.STARTS, axis=1)
    return {name: part.reshape(count, 2, 2, part.shape[1] // 4) for name, part in zip(HISTOGRAMS, parts, strict=True)}


def expected(grey, flow, x, y, patch=32) -> dict:
    """The same for one place, pixel by pixel."""
    left, top = reference.corner(x, y, grey.shape, patch)
    side, found = patch // 2, {}
    cells = [
        [reference.cell_sums(grey, flow, left + i * side, top + j * side, side, side) for j in range(2)]
        for i in range(2)
    ]
    for name in HISTOGRAMS:
        sums = np.array([[cell[name] for cell in column] for column in cells]) + 0.05
        found[name] = np.sqrt(sums / sums.sum())
    return found


def noise_flow(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)


@pytest.mark.parametrize("age", [0, 7, 14])
def test_histograms_are_sums_over_the_pixels_of_cells(age):
    grey, flow = texture(60, 70), noise_flow(60, 70)
    places = [(30.4, 29.6), (12.0, 44.0), (3.2, 2.9), (69.4, 59.9), (35.5, 17.5), (0.1, 30), (30.4, 29.6)]
    found = described(grey, flow, places, age=age)
    for i, place in enumerate(places):
        for name, values in expected(grey, flow, *place).items():
            np.testing.assert_allclose(found[name][i], values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("patch", [4, 6, 16, 20, 26, 38, 48])
def test_any_size_of_a_patch(patch):
    grey, flow = texture(50, 60), noise_flow(50, 60)
    places = [(30.4, 29.6), (2.0, 49.0), (58.0, 3.0)]
    found = described(grey, flow, places, (patch, patch))
    for i, place in enumerate(places):
        for name, values in expected(grey, flow, *place, patch).items():
            np.testing.assert_allclose(found[name][i], values, atol=1e-5, err_msg=name)


def test_what_lies_elsewhere_in_the_frame_leaves_no_trace():
    """A row of strong contrast above; the sums of the flat rows below are those of flat rows."""
    grey = np.full((120, 80), 100, np.uint8)
    grey[:40] = texture(40, 80, smooth=0.8)
    found = described(grey, constant((0, 0), 120, 80), [(40, 80), (40, 20)])
    assert np.abs(found["hog"][0] - np.sqrt(1 / 32)).max() < 1e-6
    assert np.abs(found["hog"][1] - np.sqrt(1 / 32)).max() > 0.02


def test_tracks_do_not_see_each_other():
    grey, flow = texture(200, 90), noise_flow(200, 90)
    random = np.random.default_rng(5)
    places = random.uniform([0, 0], [90, 200], (40, 2))
    together = described(grey, flow, places)
    for i in range(0, 40, 5):
        alone = described(grey, flow, places[i])
        for name in HISTOGRAMS:
            np.testing.assert_allclose(alone[name][0], together[name][i], atol=1e-6)


def test_far_apart_there_are_rows_that_nobody_needs():
    grey, flow = texture(300, 64), noise_flow(300, 64)
    found = described(grey, flow, [(32, 5), (32, 290)])
    for i, place in enumerate([(32, 5), (32, 290)]):
        for name, values in expected(grey, flow, *place).items():
            np.testing.assert_allclose(found[name][i], values, atol=1e-5)


@pytest.mark.parametrize(("speed", "still"), [(0.39, True), (0.41, False)])
def test_the_ninth_bin_of_flow_is_for_what_stands_still(speed, still):
    angle = np.deg2rad(90)
    flow = constant((speed * np.cos(angle), speed * np.sin(angle)), 40, 40)
    hof = described(texture(40, 40), flow, (20, 20))["hof"][0]
    sums = np.full(9, 0.05)
    sums[8 if still else 2] += 256 if still else 256 * speed
    np.testing.assert_allclose(hof, np.broadcast_to(np.sqrt(sums / (4 * sums.sum())), (2, 2, 9)), atol=1e-5)


@pytest.mark.parametrize(("a", "b", "bin_"), [(0.3, 0, 0), (0.2, 0.2, 1), (0, 0.4, 2), (-0.1, 0, 4), (0.1, -0.1, 7)])
def test_a_linear_field_has_one_direction(a, b, bin_):
    y, x = np.mgrid[:44, :44].astype(np.float32)
    field = a * x + b * y
    found = described(texture(44, 44), np.stack([field, np.zeros_like(field)]), (22, 22))
    sums = np.full(8, 0.05)
    sums[bin_] += 256 * 2 * np.hypot(a, b)
    np.testing.assert_allclose(
        found["mbhx"][0], np.broadcast_to(np.sqrt(sums / (4 * sums.sum())), (2, 2, 8)), atol=1e-5
    )
    np.testing.assert_allclose(found["mbhy"][0], np.sqrt(1 / 32), atol=1e-6)


@pytest.mark.parametrize("degrees", [*range(0, 360, 45), 22.5, 112.5, 337.5, 10.0, 200.0])
def test_a_direction_is_shared_between_the_two_nearest_bins(degrees):
    angle = np.deg2rad(degrees)
    flow = constant((3 * np.cos(angle), 3 * np.sin(angle)), 40, 40)
    hof = described(texture(40, 40), flow, (20, 20))["hof"][0]
    sums = np.full(9, 0.05)
    low, part = int(degrees // 45), degrees % 45 / 45
    sums[low] += 768 * (1 - part)
    sums[(low + 1) % 8] += 768 * part
    np.testing.assert_allclose(hof[0, 0], np.sqrt(sums / (4 * sums.sum())), atol=2e-5)
    if degrees % 45 == 0:
        assert (hof[0, 0] > 0.02).sum() == 1
    if degrees == 22.5:
        assert hof[0, 0, 0] == pytest.approx(hof[0, 0, 1], abs=1e-6)


@pytest.mark.parametrize(("place", "shifted"), [((0, 0), (16, 16)), ((79, 30), (64, 30)), ((40, 59.4), (40, 44))])
def test_patches_at_the_border_are_shifted_inside(place, shifted):
    grey, flow = texture(60, 80), noise_flow(60, 80)
    found = described(grey, flow, [place, shifted])
    for values in found.values():
        assert np.array_equal(values[0], values[1])


def test_a_turned_picture_turns_its_directions():
    size = 64
    grey, flow = texture(size, size), noise_flow(size, size)
    turned = np.stack([np.rot90(flow[1]), -np.rot90(flow[0])])  # a vector (u, v) becomes (v, -u)
    x, y = 25, 40
    one = described(grey, flow, (x, y))
    other = described(np.rot90(grey).copy(), turned, (y, size - x))
    two = np.roll(np.arange(8), -2)  # bin b of the turned picture is b + 2 of the other

    def as_turned(values, order):
        return values[0].transpose(1, 0, 2)[:, ::-1][..., order]

    np.testing.assert_allclose(as_turned(one["hog"], two), other["hog"][0], atol=1e-5)
    np.testing.assert_allclose(as_turned(one["hof"], np.append(two, 8)), other["hof"][0], atol=1e-5)
    np.testing.assert_allclose(as_turned(one["mbhy"], two), other["mbhx"][0], atol=1e-5)
    # The other component changes its sign, which turns its derivatives by half a circle besides.
    np.testing.assert_allclose(as_turned(one["mbhx"], np.roll(two, 4)), other["mbhy"][0], atol=1e-5)


def test_a_mirrored_picture_mirrors_its_directions():
    width = 70
    grey, flow = texture(60, width), noise_flow(60, width)
    mirrored = np.stack([-flow[0, :, ::-1], flow[1, :, ::-1]])
    one = described(grey, flow, (30, 33))
    other = described(grey[:, ::-1].copy(), mirrored, (width - 30, 33))
    bins = {"hog": BACK, "hof": np.append(BACK, 8), "mbhx": DOWN, "mbhy": BACK}
    for name, order in bins.items():
        np.testing.assert_allclose(one[name][0, ::-1][..., order], other[name][0], atol=1e-5, err_msg=name)


def test_nothing_to_describe():
    described(texture(40, 40), constant((0, 0), 40, 40), np.empty((0, 2)))


def test_bytes_are_the_nearest_and_in_order():
    values = np.zeros((1, 3, 132), np.float32)
    values[0, 1, 0], values[0, 2, 32], values[0, 0, 68], values[0, 0, 131] = 1.0, 0.5, 0.002, 0.0019
    hog, hof, mbhx, mbhy = quantized(values)
    assert [part.shape for part in (hog, hof, mbhx, mbhy)] == [(1, 96), (1, 108), (1, 96), (1, 96)]
    assert (hog[0, 32], hof[0, 72], mbhx[0, 0], mbhy[0, 31]) == (255, 128, 1, 0)
    assert hog.sum() + hof.sum(dtype=int) + mbhx.sum() + mbhy.sum() == 255 + 128 + 1


def test_a_track_takes_its_cell_of_the_grid_and_frees_it_when_it_leaves():
    texture_ = np.ones((13, 22), np.float32)
    texture_[7, 12] = 0.5
    points = np.zeros((3, 16, 2), np.float32)
    points[1, 0], points[1, 1], points[2, 0] = (9.9, 4.9), (10.0, 5.0), (21.5, 12.5)
    slots, ages = np.array([1, 2], np.int32), np.zeros(3, np.int32)

    def cells():
        found = kernels.grid_points(texture_, 0.5, 5, points, slots, ages)
        assert (found % 5 == 2).all()
        return [tuple(place) for place in (found // 5).astype(int).tolist()]

    # Whole cells only: 4 across, 2 down. One is too flat, (1, 0) is taken; a track beside the grid takes none.
    assert cells() == [(0, 0), (2, 0), (3, 0), (0, 1), (1, 1), (3, 1)]
    ages[1] = 1
    assert cells() == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (3, 1)]
    texture_[7, 12] = 1  # not flat any more, but the track is there now
    assert (2, 1) not in cells()
    assert cells()[-1] == (3, 1)


def test_a_track_leaves_at_the_edges():
    flow = constant((0.75, 0), 20, 30)
    points, moves = np.zeros((4, 16, 2), np.float32), np.zeros((4, 15, 2), np.float32)
    points[:, 14] = [(28.5, 10), (29.25, 10), (5, 0.25), (3, 20)]
    ages, slots = np.full(4, 14, np.int32), np.arange(4, dtype=np.int32)
    goes_on, finished, lost = kernels.step(flow, 2 * flow, points, moves, slots, ages)
    assert (goes_on.tolist(), finished.tolist(), lost.tolist()) == ([], [0, 2], [1, 3])
    assert points[0, 15].tolist() == [29.25, 10]
    assert moves[0, 14].tolist() == [1.5, 0]
    ages[:] = 3
    points[:, 3] = points[:, 14]
    assert kernels.step(flow, flow, points, moves, slots, ages)[0].tolist() == [0, 2]
