"""Cubes moved within their frames, so that what is learnt of a place holds for the places beside it."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from han_core.cubes import sparse_kernels as kernels
from han_core.cubes.sparse import SparseCubes
from han_core.cubes.sparse_rows import SparseRows


def shifted(values: Tensor | SparseCubes, offsets: Tensor) -> Tensor | SparseCubes:
    """Each clip's regions moved right and down, the same in all frames; what comes in from beyond the edge is zero.

    Features without a place, R = 1, stay as they are. Of sparse cubes on a CPU new ones are made; on a GPU the kernels
    that read them move each number as they read it, and nothing is copied.

    Args:
        values: (B, T, D, R); the R regions are the rows of a square map, one after the other.
        offsets: (B, 2) int64, regions along x and along y, less than the side of the map; on the CPU, or where the
            values are on a GPU, there.

    Raises:
        ValueError: the map is not square.
    """
    regions = values.shape[3]
    if regions == 1:
        return values
    side = math.isqrt(regions)
    if side * side != regions:
        raise ValueError(f"{regions} regions are not those of a square map, which alone can be shifted")
    if isinstance(values, SparseCubes):
        if values.by_kernels:
            return replace(values, offsets=offsets.to(values.device, non_blocking=True))
        if values.device.type == "cpu":
            rows = (_shifted_rows(values, number, side, *pair) for number, pair in enumerate(offsets.tolist()))
            return SparseCubes.of(list(rows))
        values = values.dense(torch.float16)
    if values.device.type == "cpu":
        return _shifted_in_memory(values, offsets, side)
    return _shifted_on_device(values, offsets.to(values.device, non_blocking=True), side)


def _shifted_in_memory(values: Tensor, offsets: Tensor, side: int) -> Tensor:
    maps = values.reshape(*values.shape[:3], side, side)
    moved = torch.zeros_like(maps)
    for to, from_, (x, y) in zip(moved, maps, offsets.tolist(), strict=True):
        to[..., _to(y, side), _to(x, side)] = from_[..., _to(-y, side), _to(-x, side)]
    return moved.reshape(values.shape)


def _to(offset: int, side: int) -> slice:
    """Where what stays within the map lies after it moved; of minus the offset, where it lay before."""
    return slice(max(0, offset), side + min(0, offset))


def _shifted_on_device(values: Tensor, offsets: Tensor, side: int) -> Tensor:
    """The same without looking at the offsets on the host, which would have to wait for the GPU."""
    place = torch.arange(side, device=values.device)
    column, line = (place - offsets[:, axis, None] for axis in (0, 1))  # (B, side) each: where a region comes from
    inside = _on_map(line, side)[:, :, None] & _on_map(column, side)[:, None, :]
    source = (line[:, :, None] * side + column[:, None, :]).where(inside, 0)
    places = source.view(len(values), 1, 1, -1).expand_as(values)
    return values.gather(3, places).masked_fill(~inside.view(len(values), 1, 1, -1), 0)


def _on_map(place: Tensor, side: int) -> Tensor:
    return (place >= 0) & (place < side)


def _shifted_rows(cubes: SparseCubes, number: int, side: int, x: int, y: int) -> SparseRows:
    clip = int(cubes.clips[number])
    counts = cubes.counts[clip].numpy()
    first, size = int(cubes.starts[clip, 0]), int(counts.sum(dtype=np.int64))
    columns = cubes.columns[first : first + size].numpy()
    values = cubes.values[first : first + size].numpy()
    if not x and not y:
        return SparseRows(counts, columns, values, cubes.regions)
    kept = np.empty_like(counts), np.empty_like(columns), np.empty(size, np.uint16)
    total = kernels.shift(
        counts.reshape(-1), columns, values.view(np.uint16), side, x, y, kept[0].reshape(-1), kept[1], kept[2]
    )
    return SparseRows(kept[0], kept[1][:total], kept[2][:total].view(np.float16), cubes.regions)
