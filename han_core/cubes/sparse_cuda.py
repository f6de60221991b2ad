"""Products with sparse cubes on a GPU, straight from their rows: Triton kernels.

A glimpse (eq. 4) is a product of the rows, one a channel, with the map. Its gradient is one with the columns, and is
computed from a transposed copy (:func:`han_core.cubes.sparse_torch.turn_round`), one row a region, by the same walk
along rows: each number of a result has one program that adds it up in a fixed order, there are no atomics, and the
bytes are the same in every run. Without a transposed copy the frame is expanded first, into memory that fits
into the L2 cache.

The shapes of every launch depend on those of the batch alone, so a step can be captured as a CUDA graph.

Layout and symbols: see :mod:`han_core.cubes.sparse`; S frames at once, from frame t on.
"""

# ruff: noqa: ANN201, ANN202 (of kernels, to whose arguments and results Triton gives types)

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from han_core.cubes.sparse import SparseCubes

ROWS, LANES = 32, 32
"""Rows of a program, and non-zeros of each that it reads at once."""
TILE = 64
"""Channels and regions that a program reads at once of an expanded frame."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
"""Of every launch. Triton's own choice of fused multiply-add differs between its versions."""


@triton.jit
def _rows(counts, starts, clip, t, frames, rows, ROWS: tl.constexpr, ALL: tl.constexpr):
    """Rows of this program: their numbers, how many non-zeros each has, where in the frame they begin, and the largest
    count; and where the frame begins."""
    first = tl.program_id(1) * ROWS
    frame = clip * frames + t
    every = tl.arange(0, ALL)
    earlier = tl.load(counts + frame * rows + every, mask=every < tl.minimum(first, rows), other=0).to(tl.int32)
    row = first + tl.arange(0, ROWS)
    count = tl.load(counts + frame * rows + row, mask=row < rows, other=0).to(tl.int32)
    place = tl.sum(earlier, 0) + tl.cumsum(count, 0) - count
    return row, count, place, tl.max(count, 0), tl.load(starts + frame)


@triton.jit
def _moved(region, x, y, SIDE: tl.constexpr):
    """Where a region of a map of SIDE x SIDE is after it moved, and whether that is on the map."""
    column = region % SIDE + x
    line = region // SIDE + y
    on_map = (column >= 0) & (column < SIDE) & (line >= 0) & (line < SIDE)
    return line * SIDE + column, on_map


@triton.jit(do_not_specialize=["t"])
def glimpse_kernel(
    counts, columns, values, starts, clips, offsets, weights, scale, shift, mask, out,
    t, frames, rows, regions, weights_frame, out_frame, out_row,
    SIDE: tl.constexpr, AFFINE: tl.constexpr, MASKED: tl.constexpr,
    ROWS: tl.constexpr, ALL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """out[s, b, d] = sum_r weights[s, b, r] cube[b, t + s, d, r]; times scale[d] plus shift[d]; times mask[b, d].

    Grid: (B, D / ROWS, S).
    """
    b, step = tl.program_id(0), tl.program_id(2)
    clip = tl.load(clips + b)
    row, count, place, longest, start = _rows(counts, starts, clip, t + step, frames, rows, ROWS, ALL)
    own = weights + step * weights_frame + b * regions
    if SIDE > 0:
        x = tl.load(offsets + 2 * b).to(tl.int32)
        y = tl.load(offsets + 2 * b + 1).to(tl.int32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, longest, LANES):
        at = first + tl.arange(0, LANES)
        live = at[None, :] < count[:, None]
        where = place[:, None] + at[None, :]
        region = tl.load(columns + start + where, mask=live, other=0).to(tl.int32)
        value = tl.load(values + start + where, mask=live, other=0.0).to(tl.float32)
        if SIDE > 0:
            region, on_map = _moved(region, x, y, SIDE)
            live = live & on_map
        total += tl.sum(value * tl.load(own + region, mask=live, other=0.0), 1)
    inside = row < rows
    if AFFINE:
        total = total * tl.load(scale + row, mask=inside, other=0.0) + tl.load(shift + row, mask=inside, other=0.0)
    if MASKED:
        total = total * tl.load(mask + b * rows + row, mask=inside, other=0.0)
    tl.store(out + step * out_frame + b * out_row + row, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _factor(
    gradient, scale, mask, b, channel, live, channels, gradient_row, AFFINE: tl.constexpr, MASKED: tl.constexpr
):
    """Gradient of glimpses at these channels of clip b, before they were standardised and dropped."""
    factor = tl.load(gradient + b * gradient_row + channel, mask=live, other=0.0).to(tl.float32)
    if AFFINE:
        factor = factor * tl.load(scale + channel, mask=live, other=0.0)
    if MASKED:
        factor = factor * tl.load(mask + b * channels + channel, mask=live, other=0.0)
    return factor


@triton.jit(do_not_specialize=["t"])
def regions_kernel(
    counts, columns, values, starts, clips, offsets, gradient, scale, mask, out,
    t, frames, rows, channels, gradient_row,
    SIDE: tl.constexpr, AFFINE: tl.constexpr, MASKED: tl.constexpr,
    ROWS: tl.constexpr, ALL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """out[b, r] += sum_d gradient[b, d] scale[d] mask[b, d] cube[b, t, d, r], from transposed rows, one a region.

    Grid: (B, R / ROWS).
    """
    b = tl.program_id(0)
    clip = tl.load(clips + b)
    row, count, place, longest, start = _rows(counts, starts, clip, t, frames, rows, ROWS, ALL)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, longest, LANES):
        at = first + tl.arange(0, LANES)
        live = at[None, :] < count[:, None]
        where = place[:, None] + at[None, :]
        channel = tl.load(columns + start + where, mask=live, other=0).to(tl.int32)
        value = tl.load(values + start + where, mask=live, other=0.0).to(tl.float32)
        factor = _factor(gradient, scale, mask, b, channel, live, channels, gradient_row, AFFINE, MASKED)
        total += tl.sum(value * factor, 1)
    inside = row < rows
    if SIDE > 0:  # each region goes to another one or to none, so no two programs write the same
        x = tl.load(offsets + 2 * b).to(tl.int32)
        y = tl.load(offsets + 2 * b + 1).to(tl.int32)
        row, on_map = _moved(row, x, y, SIDE)
        inside = inside & on_map
    target = out + b * rows + row
    tl.store(target, tl.load(target, mask=inside, other=0.0) + total, mask=inside)


@triton.jit(do_not_specialize=["t"])
def expand_kernel(
    counts, columns, values, starts, clips, offsets, out, t, frames, rows, regions,
    SIDE: tl.constexpr, ROWS: tl.constexpr, ALL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """out[b, s, d, r] = cube[b, t + s, d, r] where that is not zero; the rest of ``out`` stays.

    Grid: (B, D / ROWS, S).
    """
    b, step = tl.program_id(0), tl.program_id(2)
    clip = tl.load(clips + b)
    row, count, place, longest, start = _rows(counts, starts, clip, t + step, frames, rows, ROWS, ALL)
    frame = (b * tl.num_programs(2) + step).to(tl.int64)
    target = out + (frame * rows + row) * regions
    if SIDE > 0:
        x = tl.load(offsets + 2 * b).to(tl.int32)
        y = tl.load(offsets + 2 * b + 1).to(tl.int32)
    for first in range(0, longest, LANES):
        at = first + tl.arange(0, LANES)
        live = at[None, :] < count[:, None]
        where = place[:, None] + at[None, :]
        region = tl.load(columns + start + where, mask=live, other=0).to(tl.int32)
        value = tl.load(values + start + where, mask=live, other=0.0)
        if SIDE > 0:
            region, on_map = _moved(region, x, y, SIDE)
            live = live & on_map
        tl.store(target[:, None] + region, value.to(out.dtype.element_ty), mask=live)


@triton.jit
def dense_regions_kernel(
    cubes, gradient, scale, mask, out, channels, regions, gradient_row,
    AFFINE: tl.constexpr, MASKED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """As :func:`regions_kernel`, from an expanded frame, cubes (B, D, R). Grid: (B, R / TILE)."""
    b = tl.program_id(0)
    region = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = region < regions
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, channels, TILE):
        channel = first + tl.arange(0, TILE)
        live = channel < channels
        factor = _factor(gradient, scale, mask, b, channel, live, channels, gradient_row, AFFINE, MASKED)
        at = (b * channels + channel)[:, None] * regions + region[None, :]
        value = tl.load(cubes + at, mask=live[:, None] & inside[None, :], other=0.0).to(tl.float32)
        total += tl.sum(value * factor[:, None], 0)
    target = out + b * regions + region
    tl.store(target, tl.load(target, mask=inside, other=0.0) + total, mask=inside)


def glimpse_into(
    out: Tensor,
    cubes: "SparseCubes",
    t: int,
    weights: Tensor,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """Eq. 4 from frame t on, standardised and with dropout, as an LSTM reads it.

    Args:
        out: (S, B, D) of any floating type and any strides but those of D; written.
        weights: (S, B, R) float32, the maps; of R and B contiguous, of S expanded maybe.
        scale, shift: (D,) float32, contiguous; the glimpse becomes glimpse * scale + shift. None is 1 and 0.
        mask: (B, D) float32, contiguous, to multiply by; None is 1.
    """
    steps, batch, rows = out.shape
    glimpse_kernel[(batch, triton.cdiv(rows, ROWS), steps)](
        cubes.counts, cubes.columns, cubes.values, cubes.starts, cubes.clips, _or(cubes.offsets, out),
        weights, _or(scale, weights), _or(shift, weights), _or(mask, weights), out,
        t, cubes.counts.shape[1], rows, cubes.regions, weights.stride(0), out.stride(0), out.stride(1),
        SIDE=_side(cubes), AFFINE=scale is not None, MASKED=mask is not None, **_along(rows), **OPTIONS,
    )  # fmt: skip


def regions_into(
    out: Tensor,
    cubes: "SparseCubes",
    t: int,
    gradient: Tensor,
    *,
    scale: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """What the gradient of the glimpse of frame t adds to that of the map.

    Args:
        out: (B, R) float32, contiguous; added to.
        gradient: (B, D) of any floating type, D contiguous: of what :func:`glimpse_into` wrote.
        scale, mask: as there.
    """
    batch, regions = out.shape
    channels = gradient.shape[1]
    factors = (gradient, _or(scale, gradient), _or(mask, gradient))
    flags = {"AFFINE": scale is not None, "MASKED": mask is not None}
    if (across := cubes.across) is not None:
        regions_kernel[(batch, triton.cdiv(regions, ROWS))](
            across.counts, across.columns, across.values, across.starts, cubes.clips, _or(cubes.offsets, out),
            *factors, out, t, across.counts.shape[1], regions, channels, gradient.stride(0),
            SIDE=_side(cubes), **flags, **_along(regions), **OPTIONS,
        )  # fmt: skip
        return
    frame = _expanded(cubes, t, 1, torch.float16)
    dense_regions_kernel[(batch, triton.cdiv(regions, TILE))](
        frame, *factors, out, channels, regions, gradient.stride(0), **flags, TILE=TILE, **OPTIONS
    )


def expanded(cubes: "SparseCubes", dtype: torch.dtype) -> Tensor:
    """The dense cubes (B, T, D, R)."""
    return _expanded(cubes, 0, cubes.counts.shape[1], dtype)


def _expanded(cubes: "SparseCubes", t: int, steps: int, dtype: torch.dtype) -> Tensor:
    """Frames t to t + S, dense: (B, S, D, R)."""
    batch, frames, rows, regions = cubes.shape
    out = torch.zeros(batch, steps, rows, regions, dtype=dtype, device=cubes.device)
    expand_kernel[(batch, triton.cdiv(rows, ROWS), steps)](
        cubes.counts, cubes.columns, cubes.values, cubes.starts, cubes.clips, _or(cubes.offsets, out), out,
        t, frames, rows, regions, SIDE=_side(cubes), **_along(rows), **OPTIONS,
    )  # fmt: skip
    return out


def _along(rows: int) -> dict[str, int]:
    return {"ROWS": ROWS, "ALL": triton.next_power_of_2(rows), "LANES": LANES}


def _side(cubes: "SparseCubes") -> int:
    return 0 if cubes.offsets is None else round(cubes.regions**0.5)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """The tensor, or any other one for an argument that is not looked at."""
    return other if tensor is None else tensor


def try_out() -> None:
    """Compile and start a kernel on this process's GPU, and see that it computes."""
    out = torch.zeros(1, TILE, device="cuda")
    ones = torch.ones(TILE * TILE, dtype=torch.float16, device="cuda")
    dense_regions_kernel[(1, 1)](
        ones, ones, ones, ones, out, TILE, TILE, TILE, AFFINE=False, MASKED=False, TILE=TILE, **OPTIONS
    )
    if out.sum().item() != TILE * TILE:
        raise RuntimeError("a kernel of Triton gives wrong numbers")
