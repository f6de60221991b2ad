"""What the kernels compute, by Triton's interpreter, which has to be chosen before they are imported:

    TRITON_INTERPRET=1 python -m tests.han_core.flow.tvl1.interpreted FOLDER

reads ``pairs.npz`` of the folder and writes ``flow.npz``, a flow a case of :data:`CASES`, for which plain torch stands
in for the kernel ``sweep``, and one by that kernel itself; and ``sweep.npz``, single sweeps. With a second argument,
``slow``, the slow cases.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from triton.runtime.interpreter import InterpretedFunction

from han_core.flow.tvl1 import cuda, cuda_pool
from han_core.flow.tvl1 import cuda_layout as layout
from han_core.flow.tvl1.cuda_pool import Pool, Tuning
from han_core.flow.tvl1.cuda_sweep import sweep
from han_core.flow.tvl1.params import TVL1Params
from tests.han_core.flow.tvl1.cases import CASES, SLOW_CASES, STOPS, SWEEPS, TINY
from tests.han_core.flow.tvl1.plain_sweep import PlainSweep
from tests.han_core.flow.tvl1.tile_kernel import advance

_PREPARED = InterpretedFunction.__call__


def _call(function, *arguments, **options):
    """The interpreter prepares triton.language anew for every function that a kernel calls, which takes ten times as
    long as what it does; for our own functions, once for the kernel is enough."""
    if function.fn.__module__.startswith("triton."):
        return _PREPARED(function, *arguments, **options)
    return function.rewrite()(*arguments, **options)


InterpretedFunction.__call__ = _call

QUICK = Tuning(block=4096, blocks=1, waiting=8)
"""The interpreter takes about as long for a large block as for a small one."""


def main(folder: Path, slow: bool) -> None:
    pairs = [torch.from_numpy(x) for x in np.load(folder / "pairs.npz").values()]
    flows = {}
    if slow:
        flows["sweep"] = solved(STOPS, {"slots": 2}, *(x[:3] for x in pairs))
    else:
        flows["tiny"] = solved(TINY, {"slots": 1}, *(x[:1, 8:14, 8:17] for x in pairs))
        np.savez(folder / "sweep.npz", **{str(n): swept(*one) for n, one in enumerate(SWEEPS)})
    cuda_pool.sweep = PlainSweep()
    flows |= {name: solved(*case, *pairs) for name, case in (SLOW_CASES if slow else CASES).items()}
    if not slow:
        flows |= replayed(*pairs)
    np.savez(folder / "flow.npz", **flows)


def solved(params: TVL1Params, tuning: dict, first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    return cuda.solve(first, second, params, Tuning(**(vars(QUICK) | tuning))).numpy()


class Replayed:
    """What stands for a graph on a GPU, and for the events behind its launches."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.count = pool, 0

    def replay(self) -> None:
        self.count += 1
        for _ in range(self.pool.tuning.launches):
            self.pool._launch()

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


def replayed(first: torch.Tensor, second: torch.Tensor) -> dict[str, np.ndarray]:
    """Two solves of one pool of fewer slots than pairs, whose launches are replayed in groups."""
    tuning = Tuning(**(vars(QUICK) | {"launches": 3}))
    pool = Pool(2, len(first), *first.shape[1:], STOPS, tuning, torch.device("cpu"))
    pool.graph = Replayed(pool)
    pool.seen = [torch.zeros(3, dtype=torch.int32) for _ in range(2)]
    pool.ready = [pool.graph] * 2
    once = pool.solve(first, second).clone().numpy()
    groups = pool.graph.count
    backwards = pool.solve(first.flip(0), second.flip(0)).numpy()
    return {"replayed": once, "replayed backwards": backwards, "groups": np.array([groups])}


def swept(height: int, width: int, steps: int, of: int, rows: int) -> np.ndarray:
    """(2, 6, H, W) fields after some iterations of random ones by the tile kernel and by the sweep; their sums of
    squared updates are compared here."""
    generator = torch.Generator().manual_seed(height * width)
    state = torch.zeros(2, 1, 6, height, width)
    state[0] = 0.3 * torch.randn(1, 6, height, width, generator=generator)
    # As the update keeps them.
    state[0, :, [2, 4], :, -1] = 0
    state[0, :, [3, 5], -1, :] = 0
    data = torch.randn(1, 4, height, width, generator=generator)
    flat = 1e-3
    data[:, 3] = -1 / (data[:, :2] ** 2).sum(1).clamp(min=flat)
    tau, bound = 0.25, 0.03
    pool = Pool(1, 1, height, width, TVL1Params(scales=1), Tuning(steps=of, rows=rows), torch.device("cpu"))
    stride = int(pool.table[0, layout.STRIDE])
    columns = slice(layout.MARGIN, layout.MARGIN + width)
    # Written or not, what lies outside must not be read.
    pool.state.fill_(7)
    before = pool.state[0, 1].view(6, height, stride)
    before.zero_()
    before[:, :, columns] = state[0, 0]
    before[2:] *= tau
    pool.data.view(3, height, stride)[:, :, columns] = data[0, :3]
    pool.plan[0, layout.PAIR], pool.plan[0, layout.STEPS_LEFT], pool.plan[0, layout.BUFFER] = 0, steps, 1
    grid = (pool.parts, 1)
    of_pool = (pool.state, pool.data, pool.partial, pool.plan, pool.table, pool.field, pool.parts)
    sweep[grid](*of_pool, tau, bound, flat, LANES=32, STEPS=pool.tuning.steps)
    found = pool.state[0, 0].view(6, height, stride)[:, :, columns].clone()
    found[2:] /= tau

    plan = torch.tensor([[steps, 0, 0, 0]], dtype=torch.int32)
    tiles = -(-height // (32 - 2 * of)) * -(-width // (64 - 2 * of))
    sums = torch.zeros(1, tiles, of)
    advance[(tiles, 1)](state, data, sums, plan, height, width, tau, bound, STEPS=of, ROWS=32, COLUMNS=64)
    expected = sums[0].sum(0)[:steps]
    torch.testing.assert_close(pool.partial[0].sum(0)[:steps], expected, rtol=1e-4, atol=0)
    return torch.stack([state[1, 0], found]).numpy()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["slow"])
