"""The kernel of the back end ``cuda`` that decides, for each slot on its own, what comes next: no launch waits for the
host, and no pair for another."""

# ruff: noqa: ANN201 (Triton reads the annotations of a kernel as its own)
import triton
import triton.language as tl

from han_core.flow.tvl1 import cuda_layout as layout
from han_core.flow.tvl1.params import MEDIAN_PERIOD

_PAIR, _LEVEL, _WARP = tl.constexpr(layout.PAIR), tl.constexpr(layout.LEVEL), tl.constexpr(layout.WARP)
_STEPS_LEFT, _DONE, _PHASE = tl.constexpr(layout.STEPS_LEFT), tl.constexpr(layout.DONE), tl.constexpr(layout.PHASE)
_BUFFER, _ACTION = tl.constexpr(layout.BUFFER), tl.constexpr(layout.ACTION)
_FILTER, _OUT, _PLAN = tl.constexpr(layout.FILTER), tl.constexpr(layout.OUT), tl.constexpr(layout.PLAN)
_RUNNING, _REPEATING = tl.constexpr(layout.RUNNING), tl.constexpr(layout.REPEATING)
_NOTHING, _START = tl.constexpr(layout.NOTHING), tl.constexpr(layout.START)
_RISE, _RELINEARISE = tl.constexpr(layout.RISE), tl.constexpr(layout.RELINEARISE)
_STRIPS, _SEGMENTS = tl.constexpr(layout.STRIPS), tl.constexpr(layout.SEGMENTS)
_TABLE, _PERIOD = tl.constexpr(layout.TABLE), tl.constexpr(MEDIAN_PERIOD)
_CHUNK = tl.constexpr(32)  # parts summed at once


@triton.jit(do_not_specialize=["parts", "levels", "warps", "iterations", "settle"])
def decide(
    partial,
    plan,
    control,
    table,
    limits,
    parts,
    levels,
    warps,
    iterations,
    settle,
    STEPS: tl.constexpr,
    POWER: tl.constexpr,
    FILTERS: tl.constexpr,
):
    """After a sweep: what each slot does next. Grid: (S,). Launch with one warp.

    The stopping rule holds for every single iteration, although several are done in a sweep: if an iteration before the
    last one met the limit, the sweep is repeated from its own start, which the other buffer still holds, with just that
    many. Sums are taken in a fixed order and decisions look at nothing but the slot's own pair, so that a pair's flow
    does not depend on its slot, nor on the pairs beside it. An empty slot takes the next pair that waits.

    Args:
        limits: (levels,) the summed squared update of U at which a warp ends.
        parts: of a slot in ``partial``.
        warps, iterations, settle: as in the params.
        STEPS, POWER: iterations of a sweep, and the power of two from there on.
        FILTERS: whether a median filter runs before the iterations 0, 30, 60, .. of a warp.
    """
    at = plan + tl.program_id(0) * _PLAN
    pair, level, warp = tl.load(at + _PAIR), tl.load(at + _LEVEL), tl.load(at + _WARP)
    steps, done, phase = tl.load(at + _STEPS_LEFT), tl.load(at + _DONE), tl.load(at + _PHASE)
    buffer = tl.load(at + _BUFFER)
    busy = pair >= 0

    here = table + level * _TABLE
    count = tl.load(here + _STRIPS) * tl.load(here + _SEGMENTS)
    index = tl.arange(0, POWER)
    errors = tl.zeros([POWER], tl.float32)
    for first in range(0, tl.where(busy, count, 0), _CHUNK):
        part = first + tl.arange(0, _CHUNK)
        place = (tl.program_id(0) * parts + part)[:, None] * STEPS + index[None, :]
        known = (part < count)[:, None] & (index < steps)[None, :]
        errors += tl.sum(tl.load(partial + place, mask=known, other=0.0), axis=0)
    # Iterations after the last warp end by their number, and with no update at all.
    settling = warp >= warps
    limit = tl.where(settling, 0.0, tl.load(limits + level))
    needed = tl.min(tl.where((errors <= limit) & (index < steps), index + 1, STEPS + 1))

    repeats = busy & (phase != _REPEATING) & (needed < steps)
    landed = busy & ((phase == _REPEATING) | (needed >= steps))
    done = tl.where(landed, done + steps, done)
    buffer = tl.where(landed, 1 - buffer, buffer)
    total = tl.where(settling, settle, iterations)
    over = landed & ((phase == _REPEATING) | (needed == steps) | (done >= total))
    settles = over & (level == 0) & (warp == warps - 1) & (settle > 0)
    warps_on = over & (warp < warps - 1)
    rises = over & (warp >= warps - 1) & (level > 0)
    ends = over & (level == 0) & (warp >= warps - 1) & ((settle == 0) | (warp >= warps))

    takes = ends | (pair < 0)
    # Looked at first, so that the number does not run away while empty slots wait for the last pairs.
    some_left = tl.load(control) < tl.load(control + 1)
    following = tl.atomic_add(control, 1, mask=takes & some_left)
    following = tl.where(takes & some_left & (following < tl.load(control + 1)), following, -1)
    tl.atomic_add(control + 2, 1, mask=ends)
    starts = takes & (following >= 0)

    tl.store(at + _OUT, tl.where(ends, pair, -1))
    pair = tl.where(takes, following, pair)
    level = tl.where(takes, levels - 1, tl.where(rises, level - 1, level))
    warp = tl.where(takes | rises, 0, tl.where(settles | warps_on, warp + 1, warp))
    done = tl.where(takes | over, 0, done)
    action = tl.where(starts, _START, tl.where(rises, _RISE, tl.where(warps_on, _RELINEARISE, _NOTHING)))
    # Where fields are made anew, they are made in the buffer beside those that are still read.
    buffer = tl.where(takes | rises, 1 - buffer, buffer)
    total = tl.where(warp >= warps, settle, iterations)
    left = total - done
    if FILTERS:
        filters = (action != _NOTHING) | (landed & (warp < warps) & (done % _PERIOD == 0) & (over == 0))
        buffer = tl.where(filters, 1 - buffer, buffer)
        left = tl.where(warp < warps, tl.minimum(left, _PERIOD - done % _PERIOD), left)
        tl.store(at + _FILTER, filters.to(tl.int32))
    tl.store(at + _PAIR, pair)
    tl.store(at + _LEVEL, level)
    tl.store(at + _WARP, warp)
    tl.store(at + _STEPS_LEFT, tl.where(pair < 0, 0, tl.where(repeats, needed, tl.minimum(STEPS, left))))
    tl.store(at + _DONE, done)
    tl.store(at + _PHASE, tl.where(repeats, _REPEATING, _RUNNING))
    tl.store(at + _BUFFER, buffer)
    tl.store(at + _ACTION, action)
