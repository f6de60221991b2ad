"""Scores of attention maps against cases computed by hand, and against a picture painted pixel by pixel."""

import itertools

import numpy as np
import pytest

from han_core.evaluation.attention_quality import (
    centre_prior,
    effective_regions,
    map_quality,
    region_coverage,
    shuffled_quality,
    uniform_map,
)

SIZE = (40, 20)  # width, height: on a grid of 2 x 2 a region is 20 x 10 pixels


def one_map(*weights):
    return np.array([weights], float)


def box(*values):
    return np.array([values], float)


def test_mass_is_the_weight_inside_the_box():
    # The box is the left upper region and half of the right upper one.
    scores = map_quality(one_map(0.5, 0.2, 0.2, 0.1), box(0, 0, 30, 10), SIZE)
    assert scores.mass == pytest.approx(0.5 + 0.2 / 2)


def test_a_box_within_one_region_gets_its_share_of_the_weight():
    # 10 x 5 of the 20 x 10 pixels of the right lower region: a quarter of its weight.
    assert map_quality(one_map(0, 0, 0, 1), box(25, 12, 10, 5), SIZE).mass == pytest.approx(0.25)


def test_pointing_asks_for_the_middle_of_the_strongest_region():
    # The middle of the right upper region is (30, 5).
    maps = one_map(0.1, 0.6, 0.2, 0.1)
    assert map_quality(maps, box(29, 4, 2, 2), SIZE).pointing == 1
    assert map_quality(maps, box(31, 4, 9, 6), SIZE).pointing == 0
    assert map_quality(maps, box(0, 0, 20, 20), SIZE).pointing == 0


def test_of_equally_strong_regions_the_share_inside_counts():
    # Two strongest regions, left upper and left lower; the box holds the middle of the upper one alone.
    assert map_quality(one_map(0.4, 0.1, 0.4, 0.1), box(0, 0, 40, 10), SIZE).pointing == 0.5
    # The uniform map points everywhere: three quarters of the middles.
    boxes = np.array([[0, 0, 40, 10], [0, 0, 40, 20]], float)
    assert map_quality(np.tile(uniform_map(4), (2, 1)), boxes, SIZE).pointing == pytest.approx((0.5 + 1) / 2)


def test_coverage_agrees_with_counting_pixels():
    rng = np.random.default_rng(0)
    width, height, grid = 84, 56, 14  # whole pixels a region: 6 x 4
    for _ in range(20):
        x, y = rng.integers(0, width - 1), rng.integers(0, height - 1)
        w, h = rng.integers(1, width - x + 1), rng.integers(1, height - y + 1)
        picture = np.zeros((height, width))
        picture[y : y + h, x : x + w] = 1
        counted = picture.reshape(grid, height // grid, grid, width // grid).mean(axis=(1, 3)).ravel()
        np.testing.assert_allclose(region_coverage(box(x, y, w, h), (width, height), grid)[0], counted, atol=1e-12)


def test_shuffled_scores_are_the_mean_over_all_orders():
    rng = np.random.default_rng(1)
    maps = rng.dirichlet(np.ones(9), 4)
    boxes = np.array([[0, 0, 10, 10], [10, 5, 20, 15], [0, 0, 40, 20], [33, 1, 7, 7]], float)
    orders = [map_quality(maps[list(order)], boxes, SIZE) for order in itertools.permutations(range(4))]
    shuffled = shuffled_quality(maps, boxes, SIZE)
    assert shuffled.mass == pytest.approx(np.mean([s.mass for s in orders]))
    assert shuffled.pointing == pytest.approx(np.mean([s.pointing for s in orders]))


def test_maps_that_follow_the_actor_beat_their_shuffle_and_still_ones_do_not():
    boxes = np.array([[0, 0, 20, 10], [20, 10, 20, 10]], float)
    following = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])
    assert map_quality(following, boxes, SIZE).mass == pytest.approx(0.7)
    assert shuffled_quality(following, boxes, SIZE).mass == pytest.approx(0.4)
    assert shuffled_quality(following, boxes, SIZE).pointing == 0.5
    still = following[[0, 0]]
    shuffled, own = shuffled_quality(still, boxes, SIZE), map_quality(still, boxes, SIZE)
    assert (shuffled.mass, shuffled.pointing) == pytest.approx((own.mass, own.pointing))


def test_the_uniform_map_scores_the_area_of_the_box():
    maps = np.tile(uniform_map(196), (1, 1))
    assert map_quality(maps, box(3, 4, 11, 7), SIZE).mass == pytest.approx(11 * 7 / 800)


def test_the_centre_prior_is_a_gaussian_around_the_middle():
    prior = centre_prior(9, deviation=0.5).reshape(3, 3)
    assert prior.sum() == pytest.approx(1)
    # Neighbours of the middle are 1/3 of the side away, that is 2/3 of a deviation.
    assert prior[1, 0] / prior[1, 1] == pytest.approx(np.exp(-0.5 * (2 / 3) ** 2))
    assert prior[0, 0] / prior[1, 1] == pytest.approx(np.exp(-((2 / 3) ** 2)))
    np.testing.assert_allclose(prior, prior[::-1, ::-1])


def test_effective_regions_counts_equal_weights():
    assert effective_regions(np.tile(uniform_map(196), (3, 1))) == pytest.approx(196)
    assert effective_regions(np.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])) == pytest.approx(1.5)


@pytest.mark.parametrize(("maps", "boxes"), [((2, 5), (2, 4)), ((2, 4), (3, 4)), ((0, 4), (0, 4)), ((2, 4), (2, 5))])
def test_shapes_that_do_not_fit_are_refused(maps, boxes):
    with pytest.raises(ValueError, match=r"not a square grid|must be"):
        map_quality(np.ones(maps), np.ones(boxes), SIZE)
