"""TV-L1 on a GPU: Triton kernels, a batch of pairs at once, several iterations per launch, launches replayed as graphs.

The pairs of a batch stop on their own: a plan on the device says for each pair what it does next, and a finished pair
costs only the start of an empty block. The host reads the plan of the group of launches before the last one, so
the GPU always has the next group at hand and never waits.
"""

import functools
import os
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from han_core.flow.tvl1 import cuda_kernels as kernels
from han_core.flow.tvl1.params import MEDIAN_PERIOD, TVL1Params, pyramid_sizes
from han_core.flow.tvl1.pyramid import median_filter, resize


@dataclass(frozen=True)
class Tuning:
    """How the work is cut up; none of it changes a result by more than rounding."""

    batch: int = 16
    """Pairs at once. Their fields should fit into the L2 cache: 5.6 MB a pair of 340x256 at the finest level."""
    steps: int = 4
    """Iterations a launch; the tiles overlap by twice as many pixels."""
    rows: int = 64
    columns: int = 64
    """Pixels of a tile, powers of two above 2 * steps."""
    warps: int = 8
    """Warps (of 32 threads) that share a tile."""
    launches: int = 3
    """Launches in one graph: between two looks at the plan."""
    block: int = 256
    """Pixels a block when warping."""

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) <= 2 * self.steps:
            raise ValueError(
                f"tiles of {self.rows}x{self.columns} have no core left after {self.steps} iterations per launch"
            )


def solve(first: Tensor, second: Tensor, params: TVL1Params, tuning: Tuning = Tuning()) -> Tensor:
    """Flow of each pair: (N, H, W) grey values 0..255 twice -> (N, 2, H, W) float32 pixels, x first.

    The tensors lie on the GPU (or, under Triton's interpreter, on the CPU). Batches are filled up with empty pairs, so
    that memory and graphs of one size serve them all.
    """
    # Under the interpreter empty pairs would cost time and there is no graph to keep.
    size = min(tuning.batch, len(first)) if interpreted() else tuning.batch
    solver = _solver(size, *first.shape[1:], params, tuning, str(first.device))
    flow = torch.empty(len(first), 2, *first.shape[1:], device=first.device)
    for start in range(0, len(first), size):
        end = min(start + size, len(first))
        flow[start:end] = solver.solve(first[start:end], second[start:end])[: end - start]
    return flow


def interpreted() -> bool:
    """True under Triton's interpreter (``TRITON_INTERPRET=1``), which runs the kernels on the CPU, slowly."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device_for(frames: Tensor) -> torch.device:
    """Where frames are solved: on their own GPU, else on the first one; on the CPU under the interpreter."""
    if interpreted():
        return torch.device("cpu")
    return frames.device if frames.is_cuda else torch.device("cuda")


@functools.lru_cache(maxsize=4)
def _solver(batch: int, height: int, width: int, params: TVL1Params, tuning: Tuning, device: str) -> "_Solver":
    """Memory and graphs of the last few sizes; making them takes longer than solving a batch."""
    return _Solver(batch, height, width, params, tuning, torch.device(device))


class _Solver:
    def __init__(
        self, batch: int, height: int, width: int, params: TVL1Params, tuning: Tuning, device: torch.device
    ) -> None:
        self.params = params
        self.images = torch.zeros(batch, 2, height, width, device=device)
        # The levels are solved one after another, so the coarser ones live in the memory of the finest.
        state = torch.empty(2 * batch * 6 * height * width, device=device)
        data = torch.empty(batch * 4 * height * width, device=device)
        self.levels = [
            _Level(batch, h, w, state, data, params, tuning) for h, w in pyramid_sizes(height, width, params)
        ]

    def solve(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow of up to a batch of pairs; the result of missing pairs is zero."""
        self.images.zero_()
        self.images[: len(first), 0] = first
        self.images[: len(first), 1] = second
        images = [self.images]
        for level in self.levels[1:]:
            images.append(resize(images[-1], (level.height, level.width), self.params.scale_step))
        u = None
        for level, pyramid in zip(reversed(self.levels), reversed(images), strict=True):
            if u is not None:
                u = resize(u, (level.height, level.width)) / self.params.scale_step
            finest = level is self.levels[0]
            u = level.solve(pyramid[:, 0].contiguous(), pyramid[:, 1].contiguous(), u, finest=finest)
        return u / (self.params.tau / self.params.theta)


class _Level:
    """One level of the pyramid for a batch of pairs."""

    def __init__(
        self, batch: int, height: int, width: int, state: Tensor, data: Tensor, params: TVL1Params, tuning: Tuning
    ) -> None:
        self.batch, self.height, self.width = batch, height, width
        self.params, self.tuning = params, tuning
        size = batch * height * width
        self.state = state[: 12 * size].view(2, batch, 6, height, width)
        self.data = data[: 4 * size].view(batch, 4, height, width)
        core = (tuning.rows - 2 * tuning.steps, tuning.columns - 2 * tuning.steps)
        self.tiles = triton.cdiv(height, core[0]) * triton.cdiv(width, core[1])
        self.partial = torch.zeros(batch, self.tiles, tuning.steps, device=state.device)
        self.plan = torch.zeros(batch, 4, dtype=torch.int32, device=state.device)
        self.scale = params.tau / params.theta
        self.graphs: dict[tuple[int, float], torch.cuda.CUDAGraph] = {}
        if state.is_cuda:
            self.read = [torch.zeros(batch, 4, dtype=torch.int32, pin_memory=True) for _ in range(2)]
            self.ready = [torch.cuda.Event() for _ in range(2)]

    def solve(self, first: Tensor, second: Tensor, u: Tensor | None, *, finest: bool) -> Tensor:
        """All warps of this level: images (N, H, W), scaled flow so far (N, 2, H, W) -> scaled flow."""
        self.plan.zero_()
        self.state[0].zero_()
        if u is not None:
            self.state[0, :, :2] = u
        grid = (triton.cdiv(self.height * self.width, self.tuning.block), self.batch)
        for _ in range(self.params.warps):
            kernels.linearise[grid](
                first,
                second,
                self.state,
                self.data,
                self.plan,
                self.height,
                self.width,
                self.scale,
                BLOCK=self.tuning.block,
            )
            self._iterate(self.params)
        if finest and self.params.settle:
            self._iterate(self.params.settling())
        return self._current()

    def _current(self) -> Tensor:
        """The scaled flow of each pair, from whichever buffer holds it."""
        return torch.where(
            self.plan[:, kernels.BUFFER, None, None, None] == 0, self.state[0, :, :2], self.state[1, :, :2]
        )

    def _iterate(self, params: TVL1Params) -> None:
        """All iterations of one warp."""
        left = params.iterations
        self.plan[:, kernels.PHASE] = kernels.RUNNING
        while left > 0:
            count = left if params.median == 1 else min(left, MEDIAN_PERIOD)
            # A pair that met the limit is through with this warp; one that only used up its count continues.
            open_ = self.plan[:, kernels.PHASE] != kernels.CONVERGED
            if params.median > 1:
                filtered = median_filter(self._current(), params.median)
                for buffer in range(2):
                    filtering = (open_ & (self.plan[:, kernels.BUFFER] == buffer))[:, None, None, None]
                    self.state[buffer, :, :2] = torch.where(filtering, filtered, self.state[buffer, :, :2])
            self.plan[:, kernels.STEPS_LEFT] = torch.where(open_, min(self.tuning.steps, count), 0)
            self.plan[:, kernels.DONE] = 0
            self.plan[:, kernels.PHASE] = torch.where(open_, kernels.RUNNING, kernels.CONVERGED)
            self._run(count, params.epsilon)
            left -= count

    def _run(self, count: int, epsilon: float) -> None:
        """Launch until every pair is finished."""
        if not self.state.is_cuda:
            while bool((self.plan[:, kernels.STEPS_LEFT] > 0).any()):
                self._launch(count, epsilon)
            return
        graph = self.graphs.get((count, epsilon)) or self._capture(count, epsilon)
        most = triton.cdiv(triton.cdiv(count, self.tuning.steps) + 1, self.tuning.launches)
        for n in range(most):
            graph.replay()
            self.read[n % 2].copy_(self.plan, non_blocking=True)
            self.ready[n % 2].record()
            if n > 0:
                self.ready[(n - 1) % 2].synchronize()
                if not bool((self.read[(n - 1) % 2][:, 0] > 0).any()):
                    return

    def _launch(self, count: int, epsilon: float) -> None:
        t = self.tuning
        kernels.advance[(self.tiles, self.batch)](
            self.state,
            self.data,
            self.partial,
            self.plan,
            self.height,
            self.width,
            self.params.tau,
            self.scale**2 * self.params.lambda_ * self.params.theta,
            STEPS=t.steps,
            ROWS=t.rows,
            COLUMNS=t.columns,
            num_warps=t.warps,
        )
        kernels.decide[(self.batch,)](
            self.partial,
            self.plan,
            self.tiles,
            (self.scale * epsilon) ** 2 * self.height * self.width,
            count,
            STEPS=t.steps,
            TILES=triton.next_power_of_2(self.tiles),
            STEPS2=triton.next_power_of_2(t.steps),
        )

    def _capture(self, count: int, epsilon: float) -> torch.cuda.CUDAGraph:
        """A graph of a few launches. The plan is empty while it is made, so that nothing is solved by it."""
        plan = self.plan.clone()
        self.plan.zero_()
        self._launch(count, epsilon)  # compiles the kernels, which must not happen while launches are being recorded
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(self.tuning.launches):
                self._launch(count, epsilon)
        self.plan.copy_(plan)
        self.graphs[count, epsilon] = graph
        return graph
