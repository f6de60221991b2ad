"""Strips of frames and attention maps, looked at pixel by pixel where it is known what must be there."""

import numpy as np
import pytest

from han_core.figures.attention import attention_strip, overlay


def greens(picture):
    """(row, column) of the pixels of circles, whose rims are smooth."""
    red, green, blue = np.moveaxis(picture.astype(int), 2, 0)
    return np.argwhere(green - np.maximum(red, blue) > 80)


def grey_frames(count=3, height=60, width=80):
    return np.full((count, height, width, 3), 100, np.uint8)


def peaked(at, regions=196):
    weights = np.full(regions, 0.1 / (regions - 1))
    weights[at] = 0.9
    return weights


def test_the_circle_lies_around_the_strongest_region():
    picture = overlay(np.full((140, 280, 3), 100, np.uint8), peaked(14 * 3 + 10))  # row 3, column 10 of 14
    green = greens(picture)
    assert len(green) > 10
    y, x = green.mean(axis=0)
    assert (x, y) == (pytest.approx(10.5 * 20, abs=2), pytest.approx(3.5 * 10, abs=2))


def test_heat_is_where_the_weight_is():
    picture = overlay(np.zeros((140, 140, 3), np.uint8), peaked(14 * 7 + 2)).astype(int).sum(axis=2)
    assert picture[75, 25] > 3 * picture[75, 115]


def test_a_uniform_map_is_flat_and_circles_nothing():
    picture = overlay(np.full((56, 56, 3), 100, np.uint8), np.full(196, 1 / 196))
    assert (picture == picture[0, 0]).all()


def test_a_region_that_is_hardly_stronger_than_the_others_is_not_circled():
    for times, circled in ((1.9, False), (2.2, True)):
        weights = np.ones(196)
        weights[90] = times
        picture = overlay(np.full((140, 140, 3), 100, np.uint8), weights / weights.sum())
        assert bool(len(greens(picture))) == circled


def test_rows_are_frames_every_model_and_flow():
    flow = np.full((3, 30, 40, 3), 7, np.uint8)
    maps = {"HAN": np.stack([peaked(5)] * 3), "[15]": np.stack([peaked(190)] * 3)}
    strip = attention_strip(grey_frames(), maps, flow=flow, side=48)
    assert strip.shape == (4 * 48, 3 * 64, 3)
    assert (strip[:48] == 100).all()
    assert (strip[3 * 48 + 20 :, 64:] == 7).all()
    # The two models' circles: up and down.
    for row, low, high in ((1, 0, 24), (2, 24, 48)):
        green = greens(strip[row * 48 : (row + 1) * 48, 64:])
        assert len(green)
        assert low <= green[:, 0].mean() < high


def test_the_box_is_drawn_where_the_actor_is():
    boxes = np.array([[20, 10, 40, 30]] * 3)
    frame = attention_strip(grey_frames(), {}, boxes=boxes, side=120)[:, :160]  # twice the size
    white = np.argwhere((frame == 255).all(axis=2))
    assert white.min(axis=0).tolist() == [20, 40]
    assert white.max(axis=0).tolist() == [79, 119]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="3 frames and 2 of HAN"):
        attention_strip(grey_frames(), {"HAN": np.ones((2, 196))})
    with pytest.raises(ValueError, match="not a square grid"):
        overlay(grey_frames()[0], np.ones(195))
