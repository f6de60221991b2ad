"""What is measured of flow on a GPU, as far as it needs none."""

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed here")

from benchmarks.flow_gpu import frames, verdict
from han_core.flow.tvl1.solver import tvl1_flow

GOOD = {
    "median_difference_px": 0.0001,
    "worst_pair_mean_difference_px": 0.01,
    "same_bytes_again": True,
    "static_frames_give_zero": True,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"median_difference_px": 0.03}, "equality 340x256"),
        ({"worst_pair_mean_difference_px": 0.2}, "equality 340x256"),
        ({"same_bytes_again": False}, "equality 340x256"),
        ({"static_frames_give_zero": False}, "equality 340x256"),
    ],
)
def test_what_falls_short_is_said(change, words):
    missed = verdict({"equality 340x256": GOOD | change, "speed 340x256": {"pairs_per_second": 3000.0}})
    assert [words in line for line in missed] == ([] if words is None else [True])


def test_too_slow_is_said():
    assert verdict({"speed 340x256": {"pairs_per_second": 1000.0}}) == [
        "1000.0 pairs of 340x256 a second, the goal is 2500"
    ]
    assert verdict({}) == []


def test_made_frames_move():
    first, second = frames(None, 60, 80, 2)
    assert (first.shape, first.dtype) == ((2, 60, 80), np.uint8)
    assert np.array_equal(frames(None, 60, 80, 2)[1], second)
    flow = tvl1_flow(first, second, backend="cpu")
    assert np.abs(flow).max((1, 2, 3)).min() > 1
