"""Sparse cubes by torch's own operations, on any device: expanded, and the other way round.

Layout and symbols: see :mod:`han_core.cubes.sparse`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from han_core.cubes.sparse import SparseCubes

AT_ONCE = 16
"""Clips that are turned round at once: of UCF-101's, 6 million non-zeros of one stream, in 300 MB of passing memory."""


def expanded(cubes: "SparseCubes", dtype: torch.dtype) -> Tensor:
    """The dense cubes (B, T, D, R). On a GPU the host waits for it once."""
    row, place = _rows_and_places(cubes, cubes.clips)
    out = torch.zeros(cubes.clips.numel() * cubes.counts[0].numel() * cubes.regions, dtype=dtype, device=cubes.device)
    with _any_order():
        out[row * cubes.regions + numbers(cubes.columns)[place].to(torch.int64)] = cubes.values[place].to(dtype)
    return out.view(cubes.shape)


def turn_round(cubes: "SparseCubes", to: "SparseCubes") -> None:
    """Write the same numbers of all N clips into ``to`` (on the same device), whose rows are regions and whose columns
    are channels. Within a row they stay in order, and the result is the same on every device."""
    clips, frames, channels = cubes.counts.shape
    regions = cubes.regions
    begin = 0
    for first in range(0, clips, AT_ONCE):
        part = slice(first, min(first + AT_ONCE, clips))
        shape = (part.stop - first, frames, regions)
        row, place = _rows_and_places(cubes, torch.arange(first, part.stop, device=cubes.device))
        frame, channel = row.div(channels, rounding_mode="floor"), row % channels
        new_row = frame * regions + numbers(cubes.columns)[place]
        order = new_row.sort(stable=True).indices
        counts = torch.bincount(new_row, minlength=shape[0] * frames * regions).view(shape)
        sizes = counts.sum(dim=2).flatten()
        numbers(to.counts)[part] = counts.to(numbers(to.counts).dtype)
        to.starts[part] = (begin + sizes.cumsum(0) - sizes).view(shape[:2])
        end = begin + len(order)
        numbers(to.columns)[begin:end] = channel[order].to(numbers(to.columns).dtype)
        to.values[begin:end] = cubes.values[place[order]]
        begin = end


def numbers(tensor: Tensor) -> Tensor:
    """uint16 as int16, with which torch can do more: counts and columns lie below 32,768."""
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor


def _rows_and_places(cubes: "SparseCubes", clips: Tensor) -> tuple[Tensor, Tensor]:
    """For each of the n non-zeros of some clips: which of their rows (clip, frame, channel) it belongs to, and where in
    the store it lies; (n,) int64 each."""
    counts = numbers(cubes.counts)[clips].reshape(-1).to(torch.int64)  # non-zeros of each row
    sizes = counts.view(len(clips), -1).sum(dim=1)  # of each clip
    total = int(sizes.sum())
    # Numbered through the clips, those of clip b are before[b] .. before[b] + sizes[b]; in the store they begin where
    # its first frame does. So a number becomes a place by adding the difference of the two beginnings.
    before = torch.cumsum(sizes, 0) - sizes
    place = torch.arange(total, device=cubes.device)
    place += torch.repeat_interleave(cubes.starts[clips, 0] - before, sizes, output_size=total)
    row = torch.repeat_interleave(torch.arange(len(counts), device=cubes.device), counts, output_size=total)
    return row, place


@contextmanager
def _any_order() -> Iterator[None]:
    """No place is written twice, so the result is the same in any order, and torch need not sort for it."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
