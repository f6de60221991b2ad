"""TV-L1 on the CPU: Numba, one fused sweep over the rows an iteration, several pairs at once."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from han_core.flow.tvl1 import cpu_kernels as kernels
from han_core.flow.tvl1.params import MEDIAN_PERIOD, TVL1Params, pyramid_sizes


def solve(first: np.ndarray, second: np.ndarray, params: TVL1Params, threads: int) -> np.ndarray:
    """Flow of each pair, ``threads`` pairs at once.

    Args:
        first, second: (N, H, W) uint8 or float32 grey values 0..255.
        threads: Threads at most, each with one pair. The compiled loops run without Python's lock.

    Returns:
        (N, 2, H, W) float32 pixels, x first.
    """
    flow = np.empty((len(first), 2, *first.shape[1:]), np.float32)
    following = itertools.count()

    def work() -> None:
        workspace = _Workspace(*first.shape[1:], params)
        while (i := next(following)) < len(first):
            workspace.solve(first[i], second[i], flow[i])

    threads = min(threads, len(first))
    if threads == 1:
        work()
    elif threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(work) for _ in range(threads)]:
                future.result()
    return flow


def count_iterations(first: np.ndarray, second: np.ndarray, params: TVL1Params) -> list[tuple[int, int, int]]:
    """What one pair (H, W) costs: (height, width, iterations of all warps) of each level, coarsest first."""
    workspace = _Workspace(*first.shape, params)
    done = workspace.solve(first, second, np.empty((2, *first.shape), np.float32))
    return [(level.height, level.width, n) for level, n in zip(reversed(workspace.levels), done, strict=True)]


class _Workspace:
    """Memory for one pair, used again for the next: fresh pages from the system would cost several percent."""

    def __init__(self, height: int, width: int, params: TVL1Params) -> None:
        self.params = params
        self.levels = [_Level(h, w) for h, w in pyramid_sizes(height, width, params)]

    def solve(self, first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> list[int]:
        """Flow of one pair, (H, W) each, into ``flow`` (2, H, W); returns each level's iterations, coarsest first."""
        step = self.params.scale_step
        scale = self.params.tau / self.params.theta
        images = [(first.astype(np.float32), second.astype(np.float32))]
        for _ in self.levels[1:]:
            images.append(tuple(cv2.resize(image, (0, 0), fx=step, fy=step) for image in images[-1]))
        coarser, iterations = None, []
        for level, pair in zip(reversed(self.levels), reversed(images), strict=True):
            level.state.fill(0)
            if coarser is not None:
                for k in range(2):
                    u = np.ascontiguousarray(coarser.flow(k))
                    level.flow(k)[:] = cv2.resize(u, (level.width, level.height)) * np.float32(1 / step)
            iterations.append(level.solve(*pair, self.params, finest=level is self.levels[0]))
            coarser = level
        for k in range(2):
            np.divide(coarser.flow(k), np.float32(scale), out=flow[k])
        return iterations


class _Level:
    """Memory of one level of the pyramid; the layout is described in :mod:`han_core.flow.tvl1.cpu_kernels`."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        stride = -(-width // kernels.ALIGNMENT) * kernels.ALIGNMENT
        self.state = _aligned(height + 1, 6, stride)
        self.data = _aligned(height, 4, stride)
        self.quads = _aligned(height + 2 * kernels.BORDER, width + 2 * kernels.BORDER, 4)

    def flow(self, k: int) -> np.ndarray:
        """View (H, W) of the component k of U."""
        return self.state[: self.height, k, : self.width]

    def solve(self, first: np.ndarray, second: np.ndarray, params: TVL1Params, *, finest: bool) -> int:
        """All warps of this level, the dual variables carried on from warp to warp; returns the iterations done."""
        total = 0
        kernels.fill_quads(second, self.quads)
        for _ in range(params.warps):
            kernels.linearise(first, self.quads, self.state, self.data, params.tau / params.theta)
            total += self._iterate(params)
        if finest and params.settle:
            total += self._iterate(params.settling())
        return total

    def _iterate(self, params: TVL1Params) -> int:
        """All iterations of one warp; returns how many."""
        scale = params.tau / params.theta
        bound = scale**2 * params.lambda_ * params.theta
        limit = (scale * params.epsilon) ** 2 * self.height * self.width
        left = params.iterations
        while left > 0:
            count = left
            if params.median > 1:
                count = min(left, MEDIAN_PERIOD)
                for k in range(2):
                    u = np.ascontiguousarray(self.flow(k))
                    self.flow(k)[:] = cv2.medianBlur(u, params.median)
            done, converged = kernels.iterate(self.state, self.data, self.width, params.tau, bound, limit, count)
            left -= done
            if converged:
                break
        return params.iterations - left


def _aligned(*shape: int) -> np.ndarray:
    """Zeros (float32) that begin at a multiple of 64 bytes, so that no vector of a row crosses a cache line."""
    size = int(np.prod(shape))
    memory = np.zeros(size + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    return memory[start : start + size].reshape(shape)
