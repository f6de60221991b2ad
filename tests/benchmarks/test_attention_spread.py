"""What is said of attention maps."""

import numpy as np
import pytest

from benchmarks.attention_spread import figures_of


def test_uniform_maps_spread_over_all_regions_and_never_differ():
    assert figures_of(np.full((2, 4, 9), 1 / 9)) == pytest.approx((9, 0, 0))


def test_maps_that_jump_from_region_to_region_spread_over_one_and_differ_over_time():
    maps = np.full((1, 3, 4), 1e-30)
    maps[0, 0] = 0.25  # the first does not count
    maps[0, 1, 0] = maps[0, 2, 1] = 1
    regions, scores, over_time = figures_of(maps)
    assert regions == pytest.approx(1)
    assert scores > 10
    assert over_time == pytest.approx(0.5)
