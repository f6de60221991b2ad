"""The tests that a finished track has to pass."""

import numpy as np
import pytest

from han_core.baselines.trajectories.judging import CAMERA, ERRATIC, KEPT, STATIC, judge


def verdict(x, y=None, warped=2.0, camera=True) -> int:
    """Of one track with the given places (16,)."""
    x = np.asarray(x, np.float64)
    y = np.zeros(16) if y is None else np.asarray(y, np.float64)
    points = np.stack([x, y], 1)[None].astype(np.float32) + np.float32(200)
    moves = np.broadcast_to(np.asarray(warped, np.float32), (15,))
    return int(judge(points, np.stack([moves, np.zeros(15, np.float32)], 1)[None], camera)[0])


def spread(deviation: float) -> np.ndarray:
    """16 places with that standard deviation."""
    values = np.repeat([-1.0, 1.0], 8) if deviation < 5 else np.linspace(-1, 1, 16)
    return deviation * values / values.std()


def test_static_is_little_spread_in_both_directions():
    assert verdict(spread(1.72), spread(1.72)) == STATIC
    assert verdict(spread(1.74), spread(1.72)) == KEPT
    assert verdict(spread(1.72), spread(1.74)) == KEPT


def test_erratic_is_much_spread_in_one_direction():
    assert verdict(spread(49.9), spread(49.9)) == KEPT
    assert verdict(spread(50.1)) == ERRATIC
    assert verdict(np.zeros(16), spread(50.1)) == ERRATIC


@pytest.mark.parametrize(("jump", "others", "expected"), [(20.5, 8, ERRATIC), (19.5, 8, KEPT), (20.5, 9, KEPT)])
def test_erratic_is_a_long_step_that_is_most_of_the_path(jump, others, expected):
    """14 other steps make up ``others`` pixels: a share of 0.7 is where others are 8.8."""
    steps = np.full(15, others / 14)
    steps[6] = jump
    assert verdict(np.concatenate([[0], np.cumsum(steps)])) == expected


def test_the_camera_moves_what_hardly_moves_without_it():
    moving = np.arange(16) * 3.0
    assert verdict(moving, warped=1.0) == CAMERA
    assert verdict(moving, warped=[1.01, *[0.1] * 14]) == KEPT
    assert verdict(moving, warped=1.0, camera=False) == KEPT


def test_the_first_reason_counts():
    assert verdict(np.zeros(16), warped=0) == STATIC
    assert verdict(spread(60), warped=0) == ERRATIC


def test_none():
    assert judge(np.empty((0, 16, 2), np.float32), np.empty((0, 15, 2), np.float32), True).shape == (0,)
