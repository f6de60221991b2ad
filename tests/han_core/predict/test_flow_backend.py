"""A model whose flow was made by a back end that is not here."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from han_core.flow.tvl1 import solver
from han_core.predict.flow_backend import flow_backend
from han_core.predict.models import PredictError
from han_core.predict.streaming import FeatureMaker, FrameBuffer
from tests.han_core.predict.test_windows import RECIPE, LookingNet
from tests.make_videos import make_video


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch):
    monkeypatch.setattr(solver, "gpus", lambda: 0)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    flow_backend.cache_clear()
    yield
    flow_backend.cache_clear()


def test_one_that_can_run_is_taken(caplog):
    assert [flow_backend(name) for name in ("cpu", "reference", "auto")] == ["cpu", "reference", "cpu"]
    assert not caplog.messages


def test_a_model_from_a_gpu_labels_a_video_without_one(tmp_path, caplog):
    """With the flow of the CPU, and a line that says so."""
    caplog.set_level(logging.WARNING)
    make_video(tmp_path / "v.avi", 4)
    seen = {}
    for backend in ("cpu", "cuda", "cuda"):
        net, recipe = LookingNet(), replace(RECIPE, backend=backend)
        frames = FrameBuffer(tmp_path / "v.avi", recipe)
        frames.read_to(9)
        FeatureMaker(frames, {"temporal": net}, recipe, "cubes").make([1], 4)
        seen[backend] = np.array(net.levels)
    assert np.array_equal(seen["cuda"], seen["cpu"])
    assert np.ptp(seen["cpu"]) > 0
    (line,) = caplog.messages
    assert line.startswith("flow is computed by back end cpu, which differs by at most 0.02 pixels in the median")
    assert line.endswith("(back end 'cuda' of optical flow cannot run here: torch finds no CUDA device)")


def test_a_net_of_frames_needs_none(tmp_path, caplog):
    make_video(tmp_path / "v.avi", 2)
    FeatureMaker(
        FrameBuffer(tmp_path / "v.avi", RECIPE), {"spatial": LookingNet()}, replace(RECIPE, backend="cuda"), ""
    )
    assert not caplog.messages


def test_no_back_end_at_all(monkeypatch):
    monkeypatch.setattr(solver, "_missing", lambda name: "it is away")
    with pytest.raises(PredictError, match="install numba"):
        flow_backend("cuda")
