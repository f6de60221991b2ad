"""TV-L1 on a GPU: how frames get there and flow comes back, whoever asks, and however little memory there is.

What computes is in :mod:`han_core.flow.tvl1.cuda_pool` and the kernels that it launches.
"""

import functools
import logging
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import triton
from torch import Tensor

from han_core.devices import DeviceError
from han_core.errors import HanError
from han_core.flow.levels import LEVELS, QuantizedFlow
from han_core.flow.tvl1.cuda_pool import Pool, Tuning
from han_core.flow.tvl1.params import TVL1Params


class GPUMemoryError(HanError, RuntimeError):
    """The GPU has no memory for even one pair."""


log = logging.getLogger(__name__)

DEFAULT = Tuning()

_solving = threading.Lock()
"""Held for a whole solve. Threads of one process (of a Dask worker, say) would otherwise share a pool's memory, and a
pool for each of them would take its memory as many times without making one GPU any faster."""

_fitting: dict[tuple[str, int, int], int] = {}
"""(device, height, width) -> slots that fitted into its memory, where those asked for did not."""


def solve(first: Tensor, second: Tensor, params: TVL1Params, tuning: Tuning = DEFAULT) -> Tensor:
    """Flow of each pair: (N, H, W) grey values 0..255 twice -> (N, 2, H, W) float32 pixels, x first.

    The tensors lie on the GPU (or, under Triton's interpreter, on the CPU). Pairs do not touch each other: the same
    pair gives the same bytes whatever it is solved with, so where GPU memory runs out, half as many are solved at
    once. May be called from several threads.

    Raises:
        GPUMemoryError: there is no memory for one pair.
        DeviceError: the GPU can be used no more.
    """
    with _solving, _on(first.device):
        flow = torch.empty(len(first), 2, *first.shape[1:], device=first.device)

        def keep(pairs: slice, part: Tensor) -> None:
            flow[pairs] = part

        _in_parts(first, second, params, tuning, keep)
        return flow


def solve_quantized(
    first: Tensor,
    second: Tensor,
    params: TVL1Params,
    bound: float,
    rounding: Literal["nearest", "floor"],
    tuning: Tuning = DEFAULT,
) -> QuantizedFlow:
    """:func:`solve`, quantised where it was computed: a quarter of the bytes come back, into memory that the GPU
    reaches by itself, and the GPU never holds more flow than is solved at once."""
    with _solving, _on(first.device):
        count, (height, width) = len(first), first.shape[1:]
        shapes = (((count, 2, height, width), torch.uint8), ((count,), torch.int64), ((count,), torch.bool))
        host = [torch.empty(shape, dtype=dtype, pin_memory=first.is_cuda) for shape, dtype in shapes]

        def keep(pairs: slice, part: Tensor) -> None:
            for to, source in zip(host, quantized(part, bound, rounding), strict=True):
                to[pairs].copy_(source, non_blocking=True)

        _in_parts(first, second, params, tuning, keep)
        if first.is_cuda:
            torch.cuda.current_stream(first.device).synchronize()
        return QuantizedFlow(*(x.numpy() for x in host))


def quantized(flow: Tensor, bound: float, rounding: Literal["nearest", "floor"]) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 2, H, W) flow in pixels -> its levels as :func:`han_core.flow.levels.quantize` has them, to the bit; (N,) how
    many pixels lie beyond the bound; (N,) whether all values are finite."""
    finite = flow.isfinite().flatten(1).all(1)
    beyond = (flow.abs() > bound).any(1).flatten(1).sum(1)
    levels = (flow * (LEVELS / (2 * bound))).add_(LEVELS / 2).clamp_(0, LEVELS)
    return (levels.round_() if rounding == "nearest" else levels).to(torch.uint8), beyond, finite


def _in_parts(
    first: Tensor, second: Tensor, params: TVL1Params, tuning: Tuning, keep: Callable[[slice, Tensor], None]
) -> None:
    """Solve as many pairs at once as fit into memory, and hand each part to ``keep`` before it is overwritten."""
    device, (height, width) = first.device, first.shape[1:]
    start, tidied = 0, False
    while start < len(first):
        slots = _slots(len(first) - start, height, width, tuning, device)
        pairs = slice(start, min(start + slots * tuning.waiting, len(first)))
        if _fits(first, second, pairs, slots, params, tuning, keep):
            start = pairs.stop
            continue
        # Here, not where the error is caught: it keeps what it was raised in alive.
        _forget_pools()
        if tidied:
            _halve(device, height, width, slots)
        tidied = True  # pools of other sizes had a part of the memory


def _slots(pairs: int, height: int, width: int, tuning: Tuning, device: torch.device) -> int:
    """Pairs in work at once: what is worth it and fits into memory, and for a few pairs no more than they need."""
    fitting = _fitting.get((str(device), height, width), tuning.slots_for(height, width))
    return min(fitting, _rounded(pairs))


def _rounded(pairs: int) -> int:
    """Powers of two, so that one pool serves clips of many lengths; the interpreter, where empty slots cost time, keeps
    no graph."""
    return pairs if interpreted() else triton.next_power_of_2(pairs)


def _on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _fits(
    first: Tensor,
    second: Tensor,
    pairs: slice,
    slots: int,
    params: TVL1Params,
    tuning: Tuning,
    keep: Callable[[slice, Tensor], None],
) -> bool:
    """Solve some of the pairs and hand them to ``keep``; False where the GPU's memory is too short.

    Raises:
        DeviceError: the GPU can be used no more.
    """
    try:
        pool = _pool(slots, *first.shape[1:], params, tuning, str(first.device))
        keep(pairs, pool.solve(first[pairs], second[pairs]))
    except RuntimeError as error:
        # torch's own error, or what the driver says where a graph or a kernel finds no room.
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            return False
        raise
    except ValueError as error:  # Triton's, where the driver knows nothing of an address: never the frames' fault
        raise DeviceError(f"optical flow cannot be computed on {first.device} any more: {error}") from error
    return True


def _forget_pools() -> None:
    """Give back all that is held for later calls."""
    _pool.cache_clear()
    torch.cuda.empty_cache()


def _halve(device: torch.device, height: int, width: int, slots: int) -> None:
    """Solve half as many pairs of this size at once from now on."""
    if slots == 1:
        raise GPUMemoryError(
            f"the GPU ({device}) has no memory for the flow of one pair of {width}x{height} pixels; end what else runs "
            "on it, lower run.workers, or compute smaller flow (flow.size), or on the CPU (flow.backend: cpu)"
        )
    _fitting[str(device), height, width] = slots // 2
    log.warning("optical flow: out of GPU memory; %d pairs of %dx%d at once from now on", slots // 2, width, height)


@functools.lru_cache(maxsize=4)
def _pool(slots: int, height: int, width: int, params: TVL1Params, tuning: Tuning, device: str) -> Pool:
    """The pools of the last sizes: short and long clips take turns, and a pool takes a fair part of a clip's time to
    make."""
    return Pool(slots, slots * tuning.waiting, height, width, params, tuning, torch.device(device))


def pairs_at_once(height: int, width: int) -> int:
    """Pairs that a call should bring to keep the GPU busy: twice as many as it solves at once."""
    return DEFAULT.waiting * DEFAULT.slots_for(height, width)


def trial() -> str | None:
    """Solve one small pair: None where that works, else what goes wrong, and what to do about it."""
    if interpreted():
        return None
    frames = (torch.arange(2 * 24 * 32) % 251).reshape(2, 1, 24, 32).to(torch.uint8)
    try:
        found = solve(*frames.to(device_for(frames)), TVL1Params(scales=1, warps=1, iterations=5))
        sound = bool(torch.isfinite(found).all())
    # Whatever it is, the GPU cannot be used. Triton raises what the compiler, the driver or the system gave it.
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        compiles = isinstance(error, subprocess.CalledProcessError) or "compiler" in said.lower()
        advice = (
            "; Triton needs a C compiler (gcc or clang) and Python's header files (python3-dev)" if compiles else ""
        )
        return f"one small solve on it failed ({said}){advice}"
    return None if sound else "one small solve on it gave values that are not finite"


def interpreted() -> bool:
    """True under Triton's interpreter (``TRITON_INTERPRET=1``), which runs the kernels on the CPU, slowly."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device_for(frames: Tensor) -> torch.device:
    """Where frames are solved: on their own GPU, else on the first one; on the CPU under the interpreter."""
    if interpreted():
        return torch.device("cpu")
    return frames.device if frames.is_cuda else torch.device("cuda")
