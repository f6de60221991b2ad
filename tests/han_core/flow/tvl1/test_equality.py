"""All back ends solve the same problem in the same way: their results equal OpenCV's.

The tolerances are not zero because a pair stops when its update falls under a limit: a rounding difference may move the
stop by one iteration, and the warps that follow start from there.
"""

import cv2
import numpy as np
import pytest
import torch

from han_core.flow.flo import read_flo
from han_core.flow.tvl1.cpu import count_iterations
from han_core.flow.tvl1.energy import tvl1_energy
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import tvl1_flow
from tests.han_core.flow.tvl1.flow_pairs import end_point_error, textured_pair, video_pairs

MEDIAN, MEAN = 0.02, 0.1  # pixels of end-point difference: over everything, and of each pair


def assert_equal_flow(flow, expected):
    error = end_point_error(flow, expected)
    assert np.median(error) <= MEDIAN
    assert error.mean((1, 2)).max() <= MEAN


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "params",
    [
        TVL1Params(),
        TVL1Params(median=5),
        TVL1Params(median=3, iterations=60),
        TVL1Params(
            tau=0.2, lambda_=0.05, theta=0.4, scales=3, scale_step=0.5, warps=3, epsilon=0.02, iterations=50, settle=0
        ),  # this epsilon stops early, so that more iterations move the flow by more than the tolerance
        TVL1Params(epsilon=0, iterations=25, settle=0),
    ],
    ids=["defaults", "median5", "median3", "others", "no_early_stop"],
)
def test_synthetic_pairs(pairs, backend, params):
    expected = tvl1_flow(*pairs, backend="opencv", params=params)
    assert_equal_flow(tvl1_flow(*pairs, backend=backend, params=params), expected)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "params",
    [
        TVL1Params(epsilon=0, iterations=10, warps=2, scales=2, settle=0),
        TVL1Params(epsilon=0, iterations=60, warps=1, scales=1, median=5, settle=0),  # filtered twice in the one warp
        TVL1Params(epsilon=0, iterations=20, warps=3, scales=1, median=3, settle=0),
    ],
    ids=["plain", "median5", "median3"],
)
def test_without_early_stop_the_iterates_are_the_same(pairs, backend, params):
    """With a fixed number of iterations nothing but rounding is left between the back ends."""
    expected = tvl1_flow(*pairs, backend="opencv", params=params)
    error = end_point_error(tvl1_flow(*pairs, backend=backend, params=params), expected)
    assert np.median(error) < 1e-5
    assert error.mean() < 1e-3


@pytest.mark.parametrize("width", [3, 7, 15, 16, 17, 31, 32, 33, 47, 64, 65])
def test_every_width_of_the_last_vector(width):
    """The vector code handles the columns that do not fill a vector; each remainder must give the same iterates."""
    a, b = textured_pair(19, width, shift=(0.6, 0.4), seed=width)
    params = TVL1Params(epsilon=0, iterations=15, warps=2, scales=1)
    expected = tvl1_flow(a[None], b[None], backend="reference", params=params)
    assert np.abs(tvl1_flow(a[None], b[None], backend="cpu", params=params) - expected).max() < 2e-3


def test_motion_far_out_of_the_frame(pairs):
    """The second frame is unrelated noise, so that the flow runs wild and far outside; nothing may crash or differ."""
    rng = np.random.default_rng(3)
    second = rng.integers(0, 256, pairs[0].shape).astype(np.uint8)
    params = TVL1Params(lambda_=5.0, epsilon=0, iterations=10, warps=2, scales=1)
    flow = tvl1_flow(pairs[0], second, backend="cpu", params=params)
    assert np.isfinite(flow).all()
    assert np.abs(flow).max() > 6
    expected = tvl1_flow(pairs[0], second, backend="reference", params=params)
    assert np.median(end_point_error(flow, expected)) < 1e-3


@pytest.mark.parametrize(
    ("video", "index"),
    [
        ("odd_videos/kinetics_340x256.mp4", 50),
        ("ucf101_mini/UCF-101/Punch/v_Punch_g01_c01.avi", 10),
        ("ut_interaction/set1/4_punch/0_1_4.avi", 20),
    ],
)
def test_real_pairs(shared_data, video, index):
    first, second = video_pairs(shared_data / video, (index,))
    assert_equal_flow(tvl1_flow(first, second, backend="cpu"), tvl1_flow(first, second, backend="opencv"))


def test_a_real_pair_by_the_reference(shared_data):
    """A part of the frame and fewer warps than by default, because plain torch is slow on a CPU."""
    first, second = video_pairs(shared_data / "odd_videos/kinetics_340x256.mp4", (50,))
    first, second = first[:, 40:200, 60:280], second[:, 40:200, 60:280]
    params = TVL1Params(warps=1, scales=3, settle=0)
    expected = tvl1_flow(first, second, backend="opencv", params=params)
    assert_equal_flow(tvl1_flow(first, second, backend="reference", params=params), expected)


@pytest.mark.parametrize(
    ("name", "opencv"), [("RubberWhale", 0.156), ("Grove2", 0.157), ("Dimetrodon", 0.180), ("Venus", 0.306)]
)
def test_middlebury_is_as_good_as_opencvs(shared_data, name, opencv):
    """OpenCV's end-point errors with its CPU defaults, rounded to three places."""
    folder = shared_data / "middlebury" / name
    first, second = (cv2.imread(str(folder / f"frame1{k}.png"), cv2.IMREAD_GRAYSCALE)[None] for k in "01")
    truth = read_flo(folder / "flow10.flo")
    known = (np.abs(truth) < 1e9).all(0)
    flow = tvl1_flow(first, second, backend="cpu", params=TVL1Params(median=5))
    error = end_point_error(flow, truth[None])[0][known].mean()
    assert round(float(error), 3) <= opencv


def energies(pairs, **params):
    """Energy of each pair by ``cpu`` and by ``opencv``."""
    params = TVL1Params(**params)
    images = [torch.from_numpy(x) for x in pairs]
    return [
        tvl1_energy(*images, torch.from_numpy(tvl1_flow(*pairs, backend=backend, params=params)), params.lambda_)
        for backend in ("cpu", "opencv")
    ]


def test_energy_is_no_higher_than_opencvs(pairs):
    """Without the iterations after the last warp, rounding decides who is lower by some tenths of a percent."""
    ours, theirs = energies(pairs)
    assert (ours <= theirs).all()
    ours, theirs = energies(pairs, settle=0)
    assert (ours <= 1.005 * theirs).all()


def test_energy_on_real_pairs_is_no_higher_than_opencvs(shared_data):
    ours, theirs = energies(video_pairs(shared_data / "odd_videos/kinetics_340x256.mp4", (50, 120)))
    assert ours.sum() <= theirs.sum()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_settling_is_on_the_finest_level_and_goes_on_from_the_last_warp(pairs, backend):
    """With one level and no early stop, settling is the same as more iterations of the last warp."""
    fixed = {"epsilon": 0, "warps": 1, "scales": 1}
    flow, longer = (
        tvl1_flow(*pairs, backend=backend, params=TVL1Params(**fixed, iterations=n, settle=17 - n)) for n in (12, 17)
    )
    assert np.array_equal(flow, longer)
    work = count_iterations(pairs[0][0], pairs[1][0], TVL1Params(**(fixed | {"scales": 2}), iterations=12, settle=5))
    assert [iterations for _, _, iterations in work] == [12, 17]
