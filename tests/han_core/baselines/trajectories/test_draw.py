"""A random part of a stream."""

from itertools import pairwise

import numpy as np
import pytest

from han_core.baselines.trajectories.draw import Draw


def drawn(total: int, most: int, portion: int, seed: int = 0) -> list[int]:
    """What is kept of the numbers to ``total`` that come in portions; those that cannot win are left out at once."""
    draw = Draw(most, seed, lambda items, index: items[index], np.concatenate)
    held = 0
    for start in range(0, total, portion):
        items = np.arange(start, min(start + portion, total))
        numbers = draw.numbers(len(items))
        chosen = numbers < draw.limit
        draw.add(items[chosen], numbers[chosen])
        held = max(held, sum(map(len, draw._parts)))
    found = draw.items()
    assert not most or held <= 1.25 * most + portion + 1
    return [] if found is None else found.tolist()


def test_all_where_there_is_no_limit_or_few_come():
    assert drawn(100, 0, 7) == list(range(100))
    assert drawn(100, 100, 7) == list(range(100))
    assert drawn(0, 10, 7) == drawn(0, 0, 7) == []


def test_a_part_does_not_depend_on_the_portions():
    whole = drawn(1000, 50, 1000)
    assert len(whole) == 50
    assert all(a < b for a, b in pairwise(whole))
    assert drawn(1000, 50, 1) == drawn(1000, 50, 7) == drawn(1000, 50, 333) == whole
    assert drawn(1000, 50, 7, seed=1) != whole


@pytest.mark.parametrize("portion", [7, 500])
def test_all_are_as_likely(portion):
    counts = np.zeros(500)
    for seed in range(400):
        counts[drawn(500, 25, portion, seed)] += 1
    assert counts.sum() == 400 * 25
    quarters = counts.reshape(4, 125).sum(1)
    assert np.abs(quarters - 2500).max() < 5 * np.sqrt(2500 * 0.75)  # five standard deviations
    assert counts.max() < 50  # mean 20, deviation 4.4
