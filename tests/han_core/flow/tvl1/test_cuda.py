"""The Triton back end: its kernels under Triton's interpreter, on any machine, and the whole on a GPU."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from han_core.devices import DeviceError
from han_core.flow.levels import quantize
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import pairs_at_once, resolve_backend, tvl1_flow, tvl1_quantized
from tests.han_core.flow.tvl1.cases import CASES, SLOW_CASES, STOPS, SWEEPS, TINY
from tests.han_core.flow.tvl1.flow_pairs import end_point_error, textured_pair, video_pairs
from tests.interpreted import needs_an_interpreter_that_works

pytest.importorskip("triton", reason="triton is not installed here")

from han_core.flow.tvl1 import cuda


@pytest.fixture(scope="module")
def pairs():
    """A moving pair, a static one, and another moving one, (3, 21, 27)."""
    (a, b), (c, d) = textured_pair(21, 27, (0.6, -0.4)), textured_pair(21, 27, (-0.3, 0.2), seed=1)
    return np.stack([a, a, c]), np.stack([b, a, d])


def interpret(pairs, folder, repository, *arguments):
    """What ``interpreted.py`` writes, by file and name. The interpreter is chosen before kernels are imported."""
    np.savez(folder / "pairs.npz", *pairs)
    needs_an_interpreter_that_works()
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.han_core.flow.tvl1.interpreted", str(folder), *arguments]
    run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=1500)
    assert run.returncode == 0, run.stderr
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.fixture(scope="module")
def found(pairs, tmp_path_factory, repository):
    return interpret(pairs, tmp_path_factory.mktemp("interpreted"), repository)


class TestInterpreted:
    @pytest.mark.parametrize("n", range(len(SWEEPS)))
    def test_a_sweep_equals_the_tile_kernel(self, found, n):
        expected, swept = found["sweep"][str(n)]
        assert np.abs(expected).max() > 0.3
        assert np.abs(swept - expected).max() < 1e-4

    @pytest.mark.parametrize("case", CASES)
    def test_a_whole_solve_equals_the_cpu(self, found, pairs, case):
        expected = tvl1_flow(*pairs, backend="cpu", params=CASES[case][0])
        assert np.abs(expected[[0, 2]]).max((1, 2, 3)).min() > 0.1
        assert np.abs(found["flow"][case] - expected).max() < 1e-3
        assert not found["flow"][case][1].any(), "static frames give zero"

    def test_a_whole_solve_by_the_sweep_equals_the_cpu(self, found, pairs):
        expected = tvl1_flow(*(x[:1, 8:14, 8:17] for x in pairs), backend="cpu", params=TINY)
        assert np.abs(expected[0]).max() > 0.1
        assert np.abs(found["flow"]["tiny"] - expected).max() < 1e-3

    def test_the_bytes_do_not_depend_on_slots_order_neighbours_and_what_was_solved_before(self, found):
        """By one pool, whose launches are replayed in groups as on a GPU: the host sees the group before the last."""
        once, backwards, groups = (found["flow"][name] for name in ("replayed", "replayed backwards", "groups"))
        assert np.array_equal(once, found["flow"]["stops"])
        assert np.array_equal(backwards[::-1], found["flow"]["stops"])
        assert 2 < groups[0] < 40


@pytest.mark.slow
def test_longer_solves_of_real_and_made_pairs_equal_the_cpu(tmp_path, repository, request):
    (a, b), (c, d) = textured_pair(27, 39, (0.6, -0.4)), textured_pair(27, 39, (-1.3, 0.2), seed=1)
    noise = np.random.default_rng(2).integers(0, 256, (2, 27, 39)).astype(np.uint8)
    first, second = np.stack([a, a, c, noise[0]]), np.stack([b, a, d, noise[1]])
    real = video_pairs(request.getfixturevalue("shared_data") / "odd_videos/kinetics_340x256.mp4", (50, 120))
    first, second = (np.concatenate([x, y[:, 100:127, 150:189]]) for x, y in zip((first, second), real, strict=True))
    found = interpret((first, second), tmp_path, repository, "slow")["flow"]
    for name, (params, _) in SLOW_CASES.items():
        difference = np.abs(found[name] - tvl1_flow(first, second, backend="cpu", params=params)).max((1, 2, 3))
        assert difference[3] < 2e-2, "noise: the flow runs wild, and reference and cpu differ by as much"
        assert np.delete(difference, 3).max() < 1e-3, name
    expected = tvl1_flow(first[:3], second[:3], backend="cpu", params=STOPS)
    assert np.abs(found["sweep"] - expected).max() < 1e-3


class MadePool:
    """In the place of a pool: what looks like flow, one pair at a time, where ``fits`` pairs have room."""

    def __init__(self, fits=10**6, error=None):
        self.fits = fits
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.asked = []
        self.cleared = 0

    def cache_clear(self):
        self.cleared += 1

    def __call__(self, slots, *more):
        self.asked.append(slots)
        if slots > self.fits:
            raise self.error
        return self

    def solve(self, first, second):
        return torch.stack([first.float(), second.float() - first.float()], dim=1)


@pytest.fixture
def made_pool(monkeypatch):
    def make(*arguments, **options):
        pool = MadePool(*arguments, **options)
        monkeypatch.setattr(cuda, "_pool", pool)
        monkeypatch.setattr(cuda, "_fitting", {})
        return pool

    return make


class TestMemory:
    @pytest.fixture
    def frames(self):
        return torch.from_numpy(np.random.default_rng(4).integers(0, 256, (2, 21, 24, 32)).astype(np.uint8))

    def test_half_as_many_are_solved_where_memory_is_short(self, made_pool, frames):
        made_pool()
        expected = cuda.solve(*frames, TVL1Params())
        pool = made_pool(fits=3)
        assert torch.equal(cuda.solve(*frames, TVL1Params()), expected)
        assert pool.asked[:6] == [32, 32, 16, 8, 4, 2], "again first, without what is kept for other sizes"
        assert pool.cleared == 5
        assert set(pool.asked[6:]) == {2, 1}, "what fitted is remembered; the last pair is alone"

    def test_levels_are_the_same_where_memory_is_short(self, made_pool, frames):
        made_pool()
        expected = cuda.solve_quantized(*frames, TVL1Params(), 200.0, "nearest")
        made_pool(fits=3)
        found = cuda.solve_quantized(*frames, TVL1Params(), 200.0, "nearest")
        flow = cuda.solve(*frames, TVL1Params()).numpy()
        for one in (expected, found):
            assert np.array_equal(one.levels, quantize(flow, 200.0, "nearest"))
            assert one.beyond.tolist() == [int((np.abs(x) > 200).any(0).sum()) for x in flow]
            assert one.finite.all()
        assert found.beyond.any()

    def test_memory_that_quantising_lacks_counts_as_well(self, made_pool, frames, monkeypatch):
        pool, quantized = made_pool(), cuda.quantized

        def short(flow, *more):
            if len(flow) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return quantized(flow, *more)

        expected = cuda.solve_quantized(*frames, TVL1Params(), 20.0, "floor")
        pool.asked.clear()
        monkeypatch.setattr(cuda, "quantized", short)
        assert np.array_equal(cuda.solve_quantized(*frames, TVL1Params(), 20.0, "floor").levels, expected.levels)
        assert pool.asked[:5] == [32, 32, 16, 8, 4]
        assert set(pool.asked[5:]) <= {4, 2, 1}

    def test_memory_that_others_held_for_a_moment_changes_nothing_for_good(self, made_pool, frames):
        pool = made_pool(fits=3)
        pool.cache_clear = lambda: setattr(pool, "fits", 100)
        cuda.solve(*frames, TVL1Params())
        assert pool.asked == [32, 32]
        assert not cuda._fitting

    def test_the_next_call_starts_with_what_fitted(self, made_pool, frames):
        pool = made_pool(fits=3)
        cuda.solve(*frames, TVL1Params())
        pool.asked.clear()
        cuda.solve(*frames, TVL1Params())
        assert max(pool.asked) == 2
        cuda.solve(*frames[..., :20], TVL1Params())
        assert max(pool.asked) == 32, "frames of another size are tried anew"

    def test_what_the_driver_says_counts_as_well_and_other_errors_do_not(self, made_pool, frames):
        pool = made_pool(fits=8, error=RuntimeError("Triton Error [CUDA]: out of memory"))
        cuda.solve(*frames, TVL1Params())
        assert pool.asked[:4] == [32, 32, 16, 8]
        made_pool(fits=8, error=RuntimeError("an illegal memory access was encountered"))
        with pytest.raises(RuntimeError, match="illegal memory access"):
            cuda.solve(*frames, TVL1Params())

    def test_no_memory_for_one_pair_is_a_plain_error(self, made_pool, frames):
        made_pool(fits=0)
        with pytest.raises(cuda.GPUMemoryError, match=r"no memory for the flow of one pair of 32x24 pixels; end what"):
            cuda.solve(*frames, TVL1Params())


def test_a_gpu_that_is_gone_is_not_the_frames_fault(made_pool, monkeypatch):
    """A ValueError is for frames that cannot be solved: the clip would be blamed, and the next, and the next."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    frames = np.zeros((2, 1, 24, 32), np.uint8)
    with pytest.raises(DeviceError, match="torch finds no CUDA device"):
        tvl1_quantized(*frames, params=TVL1Params(), bound=20.0)
    made_pool(error=ValueError("Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)"), fits=0)
    with pytest.raises(DeviceError, match="on cpu any more: Pointer argument"):
        cuda.solve(*torch.from_numpy(frames), TVL1Params())


def test_threads_solve_one_after_the_other(made_pool):
    """They would share a pool and its memory."""
    pool, inside, together = made_pool(), [], []

    def solve(first, second):
        inside.append(first)
        time.sleep(0.1)  # the other thread is long waiting by then
        together.append(len(inside))
        inside.pop()
        return torch.zeros(len(first), 2, *first.shape[1:])

    pool.solve = solve
    frames = torch.zeros(2, 1, 24, 32, dtype=torch.uint8)
    threads = [threading.Thread(target=cuda.solve, args=(*frames, TVL1Params())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1, 1, 1]


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_levels_are_those_of_the_flow(rounding):
    rng = np.random.default_rng(3)
    flow = np.concatenate([rng.normal(0, 9, (2, 2, 40, 50)), rng.integers(-60, 60, (1, 2, 40, 50)) * 20 / 255])
    flow = flow.astype(np.float32)
    levels, beyond, finite = cuda.quantized(torch.from_numpy(flow), 20.0, rounding)
    assert np.array_equal(levels.numpy(), quantize(flow, 20.0, rounding))
    assert beyond.tolist() == [int((np.abs(one) > 20).any(0).sum()) for one in flow]
    assert beyond[0] > 0
    assert finite.tolist() == [True] * 3
    flow[1, 0, 3, 4] = np.nan
    assert cuda.quantized(torch.from_numpy(flow), 20.0, rounding)[2].tolist() == [True, False, True]


def test_as_many_pairs_are_read_as_keep_the_gpu_busy():
    assert pairs_at_once("cpu", 256, 340) == 16
    assert pairs_at_once("cuda", 256, 340) > 200
    assert 1 <= pairs_at_once("cuda", 2160, 3840) < 10
    assert pairs_at_once("cuda", 24, 32) == pairs_at_once("cuda", 32, 32), "there is a limit for small frames"


def test_without_a_gpu_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        resolve_backend("cuda")
    assert resolve_backend("auto") == "cpu"


@pytest.mark.gpu
class TestOnGPU:
    @pytest.mark.parametrize("params", [TVL1Params(), TVL1Params(median=5), TVL1Params(epsilon=0, iterations=30)])
    def test_equals_the_cpu(self, gpu, params):
        made = [textured_pair(60, 84, shift, seed) for seed, shift in enumerate([(1.3, -0.7), (-2.4, 1.1), (0, 0)])]
        first, second = np.stack([a for a, _ in made]), np.stack([b for _, b in made])
        found = tvl1_flow(first, second, backend="cuda", params=params)
        error = end_point_error(found, tvl1_flow(first, second, backend="cpu", params=params))
        assert np.median(error) <= 0.02
        assert error.mean((1, 2)).max() <= 0.1
        assert not found[2].any()

    def test_a_fixed_number_of_iterations_gives_the_iterates_of_the_cpu(self, gpu):
        params = TVL1Params(epsilon=0, iterations=10, warps=2, scales=2, settle=0)
        made = [textured_pair(61, 83, shift, seed) for seed, shift in enumerate([(1.3, -0.7), (-2.4, 1.1)])]
        first, second = np.stack([a for a, _ in made]), np.stack([b for _, b in made])
        found = tvl1_flow(first, second, backend="cuda", params=params)
        assert np.abs(found - tvl1_flow(first, second, backend="cpu", params=params)).max() < 1e-3

    def test_equals_the_cpu_on_video(self, gpu, shared_data):
        first, second = video_pairs(shared_data / "odd_videos/kinetics_340x256.mp4", tuple(range(0, 60, 3)))
        error = end_point_error(tvl1_flow(first, second, backend="cuda"), tvl1_flow(first, second, backend="cpu"))
        assert np.median(error) <= 0.02
        assert error.mean((1, 2)).max() <= 0.1

    def test_the_bytes_do_not_depend_on_slots_order_and_neighbours(self, gpu):
        made = [textured_pair(100, 120, (0.3 * n, -0.2 * n), seed=n) for n in range(11)]
        first, second = (torch.from_numpy(np.stack(x)).to(gpu) for x in zip(*made, strict=True))
        expected = cuda.solve(first, second, TVL1Params())
        assert expected.is_cuda
        for slots in (1, 3, 11):
            for _ in range(2):
                order = torch.randperm(len(first), device=gpu)
                found = cuda.solve(first[order], second[order], TVL1Params(), cuda.Tuning(slots=slots))
                assert torch.equal(found, expected[order])

    def test_levels_are_those_of_the_flow(self, gpu):
        a, b = textured_pair(100, 120, (3.0, -2.0))
        flow = tvl1_flow(a[None], b[None], backend="cuda")
        found = tvl1_quantized(a[None], b[None], params=TVL1Params(), bound=2.5)
        assert np.array_equal(found.levels, quantize(flow, 2.5))
        assert found.beyond.tolist() == [int((np.abs(flow[0]) > 2.5).any(0).sum())]

    def test_the_small_solve_that_is_tried_succeeds(self, gpu):
        assert cuda.trial() is None

    def test_memory_that_is_really_short(self, gpu, monkeypatch):
        monkeypatch.setattr(cuda, "_fitting", {})
        a, b = textured_pair(256, 340, (0.7, -0.2))
        first, second = (torch.from_numpy(x).to(gpu).repeat(40, 1, 1) for x in (a, b))
        expected = cuda.solve(first[:1], second[:1], TVL1Params())
        cuda._pool.cache_clear()
        torch.cuda.empty_cache()
        # 64 slots take half a gigabyte.
        room = torch.cuda.memory_reserved(gpu) + 400 * 2**20
        torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(gpu).total_memory, gpu)
        try:
            found = cuda.solve(first, second, TVL1Params())
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, gpu)
        assert cuda._fitting
        assert torch.equal(found, expected.expand_as(found))
