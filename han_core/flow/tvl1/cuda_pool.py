"""The host's side of the back end ``cuda``: a pool of slots on the GPU, refilled as pairs converge.

The host puts the pyramids of all pairs where the GPU can take them, and replays a graph of launches until the GPU says
that all are done. It looks at the number of finished pairs of the group of launches before the last one, so that the
GPU always has the next group at hand and never waits. A slot goes through the levels and warps of its pair at its own
pace: pairs on different levels share a launch.
"""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from han_core.flow.tvl1 import cuda_layout as layout
from han_core.flow.tvl1.cuda_levels import median, prepare
from han_core.flow.tvl1.cuda_plan import decide
from han_core.flow.tvl1.cuda_sweep import sweep
from han_core.flow.tvl1.params import MEDIAN_PERIOD, TVL1Params, pyramid_sizes
from han_core.flow.tvl1.pyramid import linear_taps, resize

FLAT = 1.1920929e-07
"""|gradient|^2 below which OpenCV takes a pixel for flat."""

_AT_ONCE = 64  # pairs whose pyramids are made together: bounds what torch allocates on the way


@dataclass(frozen=True)
class Tuning:
    """How the work is cut up; none of it changes a result by more than the order of the sums of a stopping rule."""

    pixels: int = 16_000_000
    """Of the finest levels of all slots together: 183 slots of 340x256 have 4,392 strips there, and a GPU with 132
    multiprocessors has room for 1,584 at once, so that it is busy while many pairs are on coarser levels."""
    slots: int = 256
    """At most."""
    waiting: int = 2
    """Pairs that a pool takes at once, as a multiple of its slots: the more, the smaller the share of the time in which
    the last ones run alone."""
    steps: int = 4
    """Iterations of one sweep, an even number. Six move a fifth less, and need 224 registers: 9 strips on a
    multiprocessor."""
    rows: int = 64
    """Of a segment, about; its neighbours compute the ``steps`` rows on either side of it too."""
    registers: int = 168
    """Of a thread of the sweep, at most: 12 strips on a multiprocessor. With 128, room for 16, some are spilled."""
    launches: int = 8
    """Sweeps in one graph: between two looks at the number of finished pairs."""
    block: int = 128
    """Pixels that a block prepares at once."""
    blocks: int = 64
    """Blocks that share the pixels of a slot when it is prepared."""

    def __post_init__(self) -> None:
        if self.steps not in (2, 4, 6, 8):
            raise ValueError(f"a sweep does 2, 4, 6 or 8 iterations, not {self.steps}")

    def slots_for(self, height: int, width: int) -> int:
        """Slots for frames of this size."""
        return max(1, min(self.slots, self.pixels // (height * width)))


class Pool:
    """Memory and graph for pairs of one size. Not for several threads at once.

    Args:
        slots: pairs in work at once.
        room: pairs that :meth:`solve` takes at most.
        height, width: of the frames, pixels.
        device: a GPU, or under Triton's interpreter the CPU.

    Raises:
        torch.OutOfMemoryError: they do not fit into its memory.
    """

    def __init__(
        self,
        slots: int,
        room: int,
        height: int,
        width: int,
        params: TVL1Params,
        tuning: Tuning,
        device: torch.device,
    ) -> None:
        self.slots, self.room, self.params, self.tuning, self.device = slots, room, params, tuning, device
        self.scale = params.tau / params.theta
        self.sizes = pyramid_sizes(height, width, params)
        levels, taps, shares = _tables(self.sizes, tuning)
        self.images_at = [level[layout.IMAGE] for level in levels]
        self.pyramid = 2 * sum(h * w for h, w in self.sizes)
        self.field = max(level[layout.HEIGHT] * level[layout.STRIDE] for level in levels)
        self.parts = max(level[layout.STRIPS] * level[layout.SEGMENTS] for level in levels)
        self.table = torch.tensor(levels, dtype=torch.int32, device=device)
        self.taps, self.shares = taps.to(device), shares.to(device)
        limits = [(self.scale * params.epsilon) ** 2 * h * w for h, w in self.sizes]
        self.limits = torch.tensor(limits, dtype=torch.float32, device=device)
        self.images = torch.empty(room, self.pyramid, device=device)
        self.out = torch.empty(room, 2, height, width, device=device)
        self.state = _zeros((slots, 2, 6, self.field), device)
        self.data = _zeros((slots, 3, self.field), device)
        self.partial = torch.zeros(slots, self.parts, tuning.steps, device=device)
        self.plan = torch.zeros(slots, layout.PLAN, dtype=torch.int32, device=device)
        self.control = torch.zeros(3, dtype=torch.int32, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self.seen = [torch.zeros(3, dtype=torch.int32, pin_memory=True) for _ in range(2)]
            # Blocking: a process that waits leaves its core to those that decode and encode.
            self.ready = [torch.cuda.Event(blocking=True) for _ in range(2)]
            self.graph = self._capture()

    def solve(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow of up to ``room`` pairs, (N, H, W) grey values on the device -> (N, 2, H, W) float32 pixels, x first.

        The result is this pool's memory, and holds until the next call.
        """
        for start in range(0, len(first), _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, len(first)))
            self._fill(part, first[part], second[part])
        self._empty()
        self.control.copy_(torch.tensor([0, len(first), 0], dtype=torch.int32))
        self._run(len(first))
        return self.out[: len(first)]

    def _empty(self) -> None:
        """Empty all slots."""
        self.plan.zero_()
        for column in (layout.PAIR, layout.OUT):
            self.plan[:, column] = -1

    def _fill(self, part: slice, first: Tensor, second: Tensor) -> None:
        """Make the pyramids of some pairs."""
        finer = None
        for (h, w), at in zip(self.sizes, self.images_at, strict=True):
            level = self.images[part, at : at + 2 * h * w].unflatten(1, (2, h, w))
            if finer is None:
                level[:, 0], level[:, 1] = first, second
            else:
                level.copy_(resize(finer, (h, w), self.params.scale_step))
            finer = level

    def _run(self, pairs: int) -> None:
        """Launch until all pairs are done."""
        for n in range(self._most_groups(pairs)):
            if self.graph is None:
                self._launch()
                done = int(self.control[2])
            else:
                self.graph.replay()
                self.seen[n % 2].copy_(self.control, non_blocking=True)
                self.ready[n % 2].record()
                if n == 0:
                    continue
                self.ready[(n - 1) % 2].synchronize()
                done = int(self.seen[(n - 1) % 2][2])
            if done == pairs:
                if self.graph is not None:
                    self.ready[n % 2].synchronize()  # the group after it, which had nothing left to do
                return
        raise RuntimeError("optical flow did not come to an end on the GPU: its plan is damaged")

    def _most_groups(self, pairs: int) -> int:
        """More are never needed: every pair uses up its iterations in each warp, and the last sweep is repeated."""
        p = self.params
        chunk = MEDIAN_PERIOD if p.median > 1 else p.iterations
        warp = -(-p.iterations // chunk) * -(-chunk // self.tuning.steps) + 2
        pair = len(self.sizes) * p.warps * warp + -(-p.settle // self.tuning.steps) + 4
        sweeps = (-(-pairs // self.slots) + 1) * pair
        return sweeps if self.graph is None else -(-sweeps // self.tuning.launches) + 2

    def _capture(self) -> torch.cuda.CUDAGraph:
        """A graph of a few sweeps. All slots are empty while it is made, so that nothing is solved by it."""
        self._empty()
        self._launch()  # compiles the kernels, which must not happen while launches are being recorded
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        # On a stream of this device: torch's own for graphs is of the device that was used first. Other threads of the
        # process may allocate meanwhile.
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(self.tuning.launches):
                self._launch()
        return graph

    def _launch(self) -> None:
        """One sweep of all slots, and what follows from it."""
        p, t = self.params, self.tuning
        sweep[(self.parts, self.slots)](
            self.state,
            self.data,
            self.partial,
            self.plan,
            self.table,
            self.field,
            self.parts,
            p.tau,
            self.scale**2 * p.lambda_ * p.theta,
            FLAT / self.scale**2,
            LANES=layout.COLUMNS // 2,
            STEPS=t.steps,
            num_warps=1,
            maxnreg=t.registers,
            enable_fp_fusion=False,
        )
        decide[(self.slots,)](
            self.partial,
            self.plan,
            self.control,
            self.table,
            self.limits,
            self.parts,
            len(self.sizes),
            p.warps,
            p.iterations,
            p.settle,
            STEPS=t.steps,
            POWER=triton.next_power_of_2(t.steps),
            FILTERS=p.median > 1,
            num_warps=1,
            enable_fp_fusion=False,
        )
        grid = (t.blocks, self.slots)
        prepare[grid](
            self.images,
            self.state,
            self.data,
            self.out,
            self.plan,
            self.table,
            self.taps,
            self.shares,
            self.field,
            self.pyramid,
            1 / self.scale,
            self.scale,
            1 / p.scale_step,
            BLOCK=t.block,
            num_warps=4,
            enable_fp_fusion=False,
        )
        if p.median > 1:
            median[grid](
                self.state,
                self.plan,
                self.table,
                self.field,
                SIDE=p.median,
                PLACES=triton.next_power_of_2(p.median**2),
                BLOCK=t.block // 2,
                num_warps=4,
                enable_fp_fusion=False,
            )


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """With as much behind it as a strip's lanes read beyond the end of the last row."""
    size = math.prod(shape)
    return torch.zeros(size + layout.COLUMNS, device=device)[:size].view(shape)


def _tables(sizes: list[tuple[int, int]], tuning: Tuning) -> tuple[list[list[int]], Tensor, Tensor]:
    """The table of levels, finest first, and what interpolation from the next coarser one needs: for each column and
    each row the pixel before it and the share of the pixel after."""
    levels, taps, shares = [], [torch.zeros(1, dtype=torch.int32)], [torch.zeros(1)]
    image, place = 0, 1
    for level, (height, width) in enumerate(sizes):
        stride = triton.cdiv(width + layout.MARGIN, layout.ALIGNMENT) * layout.ALIGNMENT
        strips = max(1, triton.cdiv(width + layout.MARGIN - 2 * tuning.steps, layout.COLUMNS - 2 * tuning.steps))
        of_segment = triton.cdiv(height, max(1, round(height / tuning.rows)))
        row = [height, width, stride, strips, triton.cdiv(height, of_segment), of_segment, image, 0, 0]
        image += 2 * height * width
        if level + 1 < len(sizes):
            for column, old, new in (
                (layout.ACROSS, sizes[level + 1][1], width),
                (layout.DOWN, sizes[level + 1][0], height),
            ):
                first, share = linear_taps(old, new)
                row[column] = place
                taps.append(first.int())
                shares.append(share)
                place += new
        levels.append(row)
    return levels, torch.cat(taps), torch.cat(shares)
