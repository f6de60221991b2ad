"""What is measured of flow on a GPU, as far as it needs none."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed here")

from benchmarks import flow_gpu
from benchmarks.flow_gpu import frames, repeated, verdict
from han_core.flow.tvl1 import cuda_layout
from han_core.flow.tvl1.cuda_pool import Pool
from han_core.flow.tvl1.params import TVL1Params
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
    missed = verdict({"equality 340x256": GOOD | change, "speed 340x256": {"pairs_of_video_per_second": 3000.0}})
    assert [words in line for line in missed] == ([] if words is None else [True])


def test_too_slow_is_said():
    assert verdict({"speed 340x256": {"pairs_per_second": 3000.0, "pairs_of_video_per_second": 1000.0}}) == [
        "1000.0 pairs of 340x256 a second of a video, the goal is 2500"
    ], "made frames are easier than a video's"
    assert verdict({}) == []


def test_the_sweep_is_timed_on_the_finest_level(monkeypatch):
    """To make its graph a pool lets ``decide`` run on empty slots, which leaves them on the coarsest level."""
    levels = []

    class Timed:
        def __getitem__(self, grid):
            return lambda *given, **more: levels.append(given[3][:, cuda_layout.LEVEL].tolist())

    def made(*given):
        pool = Pool(*given)
        pool.plan[:, cuda_layout.LEVEL] = len(pool.sizes) - 1
        return pool

    monkeypatch.setattr(flow_gpu, "Pool", made)
    monkeypatch.setattr(flow_gpu, "sweep", Timed())
    limits = {"copy_bytes_per_second": 1, "fma_operations_per_second": 1}
    flow_gpu.sweep_alone(60, 80, TVL1Params(), torch.device("cpu"), limits, small=True)
    assert levels
    assert all(one == [0, 0] for one in levels)


def test_a_call_is_given_as_many_pairs_as_are_asked_for():
    pairs = np.arange(3)[:, None, None] * np.ones((1, 4, 5), int)
    assert repeated(pairs, 7)[:, 2, 3].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeated(pairs, 2)[:, 2, 3].tolist() == [0, 1]


def test_made_frames_move():
    first, second = frames(None, 60, 80, 2)
    assert (first.shape, first.dtype) == ((2, 60, 80), np.uint8)
    assert np.array_equal(frames(None, 60, 80, 2)[1], second)
    flow = tvl1_flow(first, second, backend="cpu")
    assert np.abs(flow).max((1, 2, 3)).min() > 1
