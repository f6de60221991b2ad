"""The back end ``opencv`` where cv2 was built with CUDA, played by a stand-in, and its limits."""

import cv2
import numpy as np
import pytest

from han_core.flow.tvl1 import opencv
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import tvl1_flow


class Matrix:
    def upload(self, array):
        self.array = array

    def download(self):
        return self.array


class Solver:
    arguments = None

    @classmethod
    def create(cls, *arguments):
        cls.arguments = arguments
        return cls()

    def calc(self, first, second, flow):
        assert flow is None
        result = Matrix()
        result.upload(np.stack([first.array, second.array], axis=-1).astype(np.float32))
        return result


@pytest.fixture
def with_cuda(monkeypatch):
    monkeypatch.setattr(cv2, "cuda_OpticalFlowDual_TVL1", Solver, raising=False)
    monkeypatch.setattr(cv2, "cuda_GpuMat", Matrix, raising=False)
    monkeypatch.setattr(cv2.cuda, "getCudaEnabledDeviceCount", lambda: 1)


def test_cuda_is_used_where_it_is(with_cuda):
    first, second = np.full((1, 8, 9), 3, np.uint8), np.full((1, 8, 9), 7, np.uint8)
    flow = tvl1_flow(first, second, backend="opencv", params=TVL1Params(tau=0.2, iterations=120))
    assert (flow[0, 0] == 3).all()
    assert (flow[0, 1] == 7).all()
    assert Solver.arguments == (0.2, 0.15, 0.3, 5, 5, 0.01, 120, 0.8, 0.0, False)


def test_cuda_has_no_median_filter(with_cuda):
    frames = np.zeros((1, 20, 20), np.uint8)
    assert not tvl1_flow(frames, frames, backend="opencv", params=TVL1Params(median=5)).any()


def test_without_cuda_the_cpu_class_is_used():
    assert opencv.has_cuda() is False or cv2.cuda.getCudaEnabledDeviceCount() > 0


def test_iterations_that_opencvs_loops_cannot_express():
    frames = np.zeros((1, 20, 20), np.uint8)
    with pytest.raises(ValueError, match="a multiple of 30 iterations, not 100"):
        tvl1_flow(frames, frames, backend="opencv", params=TVL1Params(median=3, iterations=100))
