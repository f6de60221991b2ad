"""Levels of a flow file as trajectories read them: what stands still stands still."""

import numpy as np
import pytest

from han_core.camera.storedflow import field_of_levels, pixels_of_levels
from han_core.flow.levels import dequantize, quantize

BOUNDS = (0.5, 1.0, 3.7, 15.0, 20.0, 33.3, 40.0, 1000.0)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_zero_comes_back_as_zero(bound, rounding):
    levels = quantize(np.zeros((2, 3, 4), np.float32), bound, rounding)
    field = field_of_levels(levels, bound, rounding)
    assert field.dtype == np.float32
    assert field.shape == (2, 3, 4)
    assert (field == 0).all()
    assert (dequantize(levels, bound) != 0).all()


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_no_flow_is_further_off_than_half_a_level_and_on_average_none(bound, rounding):
    level = 2 * bound / 255
    flow = np.random.default_rng(0).uniform(-bound, bound - level, 200_000).astype(np.float32)
    error = field_of_levels(quantize(flow, bound, rounding), bound, rounding) - flow
    small = np.abs(flow) <= level  # around 0 a value may be a whole level off, for what it stands for is 0
    assert np.abs(error[~small]).max() < 0.501 * level
    assert np.abs(error[small]).max() < 1.001 * level
    assert abs(error[~small].mean()) < 0.01 * level


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_more_is_more(rounding):
    assert (np.diff(pixels_of_levels(20, rounding)) > 0).all()


def test_other_levels_are_as_they_are_dequantised():
    pixels = pixels_of_levels(20, "nearest")
    others = np.arange(256) != 128
    assert np.array_equal(pixels[others], dequantize(np.arange(256), 20)[others])
