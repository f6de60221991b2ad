"""The Triton back end: its kernels under Triton's interpreter, on any machine, and the whole on a GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import resolve_backend, tvl1_flow
from tests.han_core.flow.tvl1.flow_pairs import end_point_error, textured_pair, video_pairs

pytest.importorskip("triton", reason="triton is not installed here")

LARGE = {"rows": 64, "columns": 64}
CASES = {
    # Tiles of 32x32 whose core is 28x28: four tiles a pair, which hand their edges on from launch to launch.
    "tiles": (TVL1Params(scales=1, warps=1, epsilon=0, iterations=7, settle=0), {"steps": 2}),
    # Three iterations per launch and a limit that is met in the middle of one: it has to be repeated in part.
    "stops": (
        TVL1Params(scales=1, warps=2, epsilon=0.02, iterations=60, settle=0),
        {"steps": 3, "rows": 64, "columns": 64},
    ),
    # On the finest level alone more iterations follow, here not a multiple of those of a launch.
    "levels": (
        TVL1Params(scales=2, warps=1, epsilon=0.05, iterations=8, settle=6),
        {"steps": 4, "rows": 64, "columns": 64},
    ),
    "median": (
        TVL1Params(scales=1, warps=1, epsilon=0.003, iterations=34, median=3, settle=0),
        {"steps": 8} | LARGE,
    ),
}

SOLVE = """
import numpy as np, torch
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1 import cuda
from tests.han_core.flow.tvl1.test_cuda import CASES
first, second = (torch.from_numpy(x) for x in np.load("pairs.npy"))
for name, (params, tuning) in CASES.items():
    size = {"batch": 3, "rows": 32, "columns": 32, "block": 2048} | tuning
    np.save(name + ".npy", cuda.solve(first, second, params, cuda.Tuning(**size)).numpy())
"""


@pytest.fixture(scope="module")
def pairs():
    """A moving pair, a static one, and another moving one, (3, 36, 40)."""
    (a, b), (c, d) = textured_pair(36, 40, (0.6, -0.4)), textured_pair(36, 40, (-0.3, 0.2), seed=1)
    return np.stack([a, a, c]), np.stack([b, a, d])


@pytest.fixture(scope="module")
def interpreted(pairs, tmp_path_factory, repository):
    """Flow of every case, found under the interpreter, which has to be chosen before the kernels are imported."""
    folder = tmp_path_factory.mktemp("interpreted")
    np.save(folder / "pairs.npy", np.stack(pairs))
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SOLVE], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr
    return {name: np.load(folder / f"{name}.npy") for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_reference(interpreted, pairs, case):
    expected = tvl1_flow(*pairs, backend="reference", params=CASES[case][0])
    assert np.abs(expected).max() > 0.1
    assert np.abs(interpreted[case] - expected).max() < 1e-3


@pytest.mark.parametrize("case", CASES)
def test_kernels_leave_static_frames_at_zero(interpreted, case):
    assert not interpreted[case][1].any()


def test_without_a_gpu_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        resolve_backend("cuda")
    assert resolve_backend("auto") == "cpu"


def test_tiles_without_a_core_are_refused():
    from han_core.flow.tvl1.cuda import Tuning

    with pytest.raises(ValueError, match="no core left"):
        Tuning(steps=16, rows=32)


@pytest.mark.gpu
class TestOnGPU:
    @pytest.mark.parametrize("params", [TVL1Params(), TVL1Params(median=5), TVL1Params(epsilon=0, iterations=30)])
    def test_equals_opencv(self, gpu, params):
        made = [textured_pair(60, 84, shift, seed) for seed, shift in enumerate([(1.3, -0.7), (-2.4, 1.1), (0, 0)])]
        first, second = np.stack([a for a, _ in made]), np.stack([b for _, b in made])
        error = end_point_error(
            tvl1_flow(first, second, backend="cuda", params=params),
            tvl1_flow(first, second, backend="opencv", params=params),
        )
        assert np.median(error) <= 0.02
        assert error.mean((1, 2)).max() <= 0.1

    def test_equals_opencv_on_video(self, gpu, shared_data):
        first, second = video_pairs(shared_data / "odd_videos/kinetics_340x256.mp4", tuple(range(0, 60, 3)))
        error = end_point_error(tvl1_flow(first, second, backend="cuda"), tvl1_flow(first, second, backend="cpu"))
        assert np.median(error) <= 0.02
        assert error.mean((1, 2)).max() <= 0.1

    def test_runs_again_with_the_same_bytes(self, gpu):
        a, b = textured_pair(100, 120)
        first, second = torch.from_numpy(a)[None].to(gpu), torch.from_numpy(b)[None].to(gpu)
        once = tvl1_flow(first, second, backend="cuda")
        assert once.is_cuda
        for _ in range(3):
            assert torch.equal(tvl1_flow(first, second, backend="cuda"), once)
