"""The interface: what goes in, what comes out, what is refused."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from han_core.flow.tvl1 import solver
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import BACKENDS, resolve_backend, tvl1_flow
from tests.han_core.flow.tvl1.flow_pairs import textured_pair

SOLVERS = ["opencv", "cpu", "reference"]
QUICK = TVL1Params(scales=2, warps=2, iterations=20)


@pytest.mark.parametrize("backend", SOLVERS)
def test_shape_and_type(pairs, backend):
    flow = tvl1_flow(*pairs, backend=backend, params=QUICK)
    assert flow.shape == (3, 2, 60, 84)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


@pytest.mark.parametrize("backend", SOLVERS)
def test_x_comes_first_and_points_from_first_to_second(backend):
    a, b = textured_pair(64, 80, shift=(2.0, -1.0))
    flow = tvl1_flow(a[None], b[None], backend=backend)[0, :, 8:-8, 8:-8]
    assert np.median(flow[0]) == pytest.approx(2.0, abs=0.1)
    assert np.median(flow[1]) == pytest.approx(-1.0, abs=0.1)


@pytest.mark.parametrize("backend", SOLVERS)
def test_static_frames_give_exactly_zero(pairs, backend):
    assert not tvl1_flow(pairs[0], pairs[0], backend=backend).any()


@pytest.mark.parametrize("backend", SOLVERS)
def test_black_frames_give_zero(backend):
    black = np.zeros((1, 40, 40), np.uint8)
    assert not tvl1_flow(black, black, backend=backend).any()


@pytest.mark.parametrize("backend", SOLVERS)
def test_floats_of_0_to_255_equal_bytes(pairs, backend):
    expected = tvl1_flow(*pairs, backend=backend, params=QUICK)
    floats = tvl1_flow(*(x.astype(np.float64) for x in pairs), backend=backend, params=QUICK)
    assert np.abs(floats - expected).max() < (0.05 if backend == "opencv" else 1e-6)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_pair_does_not_depend_on_its_batch(pairs, backend):
    params = TVL1Params(scales=3, warps=2)
    batch = tvl1_flow(*pairs, backend=backend, params=params)
    for i in range(3):
        alone = tvl1_flow(pairs[0][i : i + 1], pairs[1][i : i + 1], backend=backend, params=params)
        assert np.abs(batch[i] - alone[0]).max() < 1e-4


@pytest.mark.parametrize("backend", SOLVERS)
def test_no_pairs_give_an_empty_result(backend):
    none = np.zeros((0, 30, 40), np.uint8)
    assert tvl1_flow(none, none, backend=backend).shape == (0, 2, 30, 40)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_tensors_give_tensors(pairs, backend):
    flow = tvl1_flow(*(torch.from_numpy(x) for x in pairs), backend=backend, params=QUICK)
    assert isinstance(flow, torch.Tensor)
    assert flow.dtype == torch.float32
    assert np.array_equal(flow.numpy(), tvl1_flow(*pairs, backend=backend, params=QUICK))


@pytest.mark.parametrize("backend", SOLVERS)
@pytest.mark.parametrize("size", [(3, 3), (3, 50), (15, 17), (16, 16), (17, 33), (21, 20)])
def test_small_frames_use_fewer_levels(backend, size):
    a, b = textured_pair(*size, shift=(0.5, 0.3))
    params = TVL1Params(settle=0)  # few levels converge slowly, so that more iterations move the flow
    flow = tvl1_flow(a[None], b[None], backend=backend, params=params)
    expected = tvl1_flow(a[None], b[None], backend="opencv", params=params)
    assert np.abs(flow - expected).mean() < 0.05


def test_views_and_big_endian_floats_are_accepted(pairs):
    expected = tvl1_flow(*pairs, backend="cpu", params=QUICK)
    views = [np.repeat(x, 2, axis=2)[:, :, ::2] for x in pairs]
    assert np.array_equal(tvl1_flow(*views, backend="cpu", params=QUICK), expected)
    swapped = [x.astype(">f4") for x in pairs]
    assert np.array_equal(tvl1_flow(*swapped, backend="cpu", params=QUICK), expected)


class TestRefusals:
    def refused(self, first, second, message, **options):
        with pytest.raises(ValueError, match=message):
            tvl1_flow(first, second, **options)

    def test_frames_of_different_sizes(self):
        a, b = np.zeros((1, 20, 30), np.uint8), np.zeros((1, 20, 31), np.uint8)
        self.refused(a, b, r"one shape; they have \(1, 20, 30\) and \(1, 20, 31\)")

    def test_a_single_frame_without_batch(self):
        a = np.zeros((20, 30), np.uint8)
        self.refused(a, a, r"\(N, H, W\) of grey frames")

    def test_colour_frames(self):
        a = np.zeros((1, 20, 30, 3), np.uint8)
        self.refused(a, a, r"\(N, H, W\) of grey frames")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1, 256])
    @pytest.mark.parametrize("where", [0, 1])
    def test_values_that_are_no_grey_values(self, pairs, bad, where):
        frames = [x.astype(np.float32) for x in pairs]
        frames[where][1, 5, 7] = bad
        self.refused(*frames, ("first", "second")[where] + " must hold finite grey values")
        self.refused(*(torch.from_numpy(x) for x in frames), "must hold finite grey values")

    def test_integers_other_than_bytes(self):
        a = np.zeros((1, 20, 30), np.int32)
        self.refused(a, a, "uint8 or floating point values, not int32")

    def test_frames_under_three_pixels(self):
        a = np.zeros((1, 2, 30), np.uint8)
        self.refused(a, a, "at least 3 pixels")

    def test_lists(self):
        self.refused([[[0]]], [[[0]]], "numpy array or a torch tensor, not list")

    def test_arrays_with_tensors(self):
        a = np.zeros((1, 20, 30), np.uint8)
        self.refused(a, torch.from_numpy(a), "both be")

    def test_no_threads(self, pairs):
        self.refused(*pairs, "threads must be at least 1", backend="cpu", threads=0)

    def test_an_unknown_back_end(self, pairs):
        self.refused(*pairs, "no back end 'gpu'; there are auto, reference, cpu, cuda, opencv", backend="gpu")


class TestResolve:
    @pytest.fixture(autouse=True)
    def _untried(self):
        solver._failure_on_gpu.cache_clear()
        yield
        solver._failure_on_gpu.cache_clear()

    @pytest.fixture
    def only(self, monkeypatch):
        def set_available(*names, failure=None):
            monkeypatch.setattr(solver, "_missing", lambda name: None if name in names else "it is away")
            monkeypatch.setattr("han_core.flow.tvl1.cuda.trial", lambda: failure)
            solver._failure_on_gpu.cache_clear()

        pytest.importorskip("triton", reason="triton is not installed here")
        return set_available

    def test_auto_prefers_cuda_then_cpu_then_opencv(self, only, caplog):
        caplog.set_level(logging.INFO, logger="han_core.flow.tvl1.solver")
        for names, expected in [(BACKENDS, "cuda"), (("cpu", "opencv"), "cpu"), (("opencv", "reference"), "opencv")]:
            only(*names)
            assert resolve_backend("auto") == expected
            assert caplog.messages[-1] == f"optical flow: back end auto is {expected}"

    def test_nothing_there(self, only):
        only()
        with pytest.raises(ValueError, match="install numba"):
            resolve_backend("auto")

    def test_asked_for_but_away(self, only):
        only("cpu")
        with pytest.raises(ValueError, match="'cuda' of optical flow cannot run here: it is away"):
            resolve_backend("cuda")

    def test_a_gpu_that_cannot_compute_is_told_and_left_alone(self, only, caplog):
        only(*BACKENDS, failure="one small solve on it failed (no compiler)")
        assert resolve_backend("auto") == "cpu"
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "back end cuda cannot run here: one small solve on it failed (no compiler)" in warning.getMessage()
        with pytest.raises(ValueError, match=r"'cuda' of optical flow cannot run here: one small solve on it failed"):
            resolve_backend("cuda")

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
            subprocess.CalledProcessError(1, ["gcc", "main.c"]),  # no Python.h
        ],
    )
    def test_what_triton_lacks_is_said(self, monkeypatch, error):
        pytest.importorskip("triton", reason="triton is not installed here")
        from han_core.flow.tvl1 import cuda

        def fails(*arguments):
            raise error

        monkeypatch.setattr(cuda, "device_for", lambda frames: torch.device("cpu"))
        monkeypatch.setattr(cuda, "solve", fails)
        told = cuda.trial()
        assert str(error).splitlines()[0] in told
        assert "Triton needs a C compiler (gcc or clang) and Python's header files (python3-dev)" in told

    def test_flow_by_a_named_back_end_is_not_tried_first(self, only, pairs, monkeypatch):
        """Workers are told which one it is, after it was tried once where they were started."""
        only("cpu", failure="must not be asked")
        assert tvl1_flow(*pairs, backend="cpu", params=QUICK).any()

    def test_nothing_is_imported_where_there_is_no_gpu(self, repository):
        """Torch takes seconds."""
        script = (
            "import sys; from han_core import devices; devices._gpu_driver = lambda: False\n"
            "from han_core.flow.tvl1.solver import resolve_backend; print(resolve_backend('auto'))\n"
            "assert not {'torch', 'triton'} & set(sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True)
        assert (run.stdout, run.stderr) == ("cpu\n", "")
