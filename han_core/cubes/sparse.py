"""Feature cubes in sparse form: conv5_3 after ReLU is 85 to 95 % zeros.

The layout is compressed sparse rows, as SciPy's ``csr_matrix`` has it: one row a channel of a frame, one column a
region. For N clips, T frames, D channels, R regions:

counts
    (N, T, D) uint8 (uint16 where R > 255): non-zeros of each row.
columns
    (nnz,) uint8 (uint16 where R > 256): the region of each non-zero, rows one after the other.
values
    (nnz,) float16: its value. Lossless: -0.0 counts as non-zero.

A bit mask and the values, the other candidate, takes less where more than an eighth is non-zero, but the rows can be
used as they are: a glimpse (eq. 4) costs one multiplication a non-zero, on a CPU (:mod:`han_core.cubes.sparse_kernels`)
and on a GPU (:mod:`han_core.cubes.sparse_cuda`).
"""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from han_core.cubes import gpu_kernels, sparse_torch
from han_core.cubes import sparse_kernels as kernels
from han_core.cubes.sparse_rows import SparseRows, column_type, count_type


@dataclass(frozen=True)
class SparseCubes:
    """Cubes of one stream for a batch of B clips, out of N that lie in memory or on a GPU.

    Attributes:
        counts, columns, values: of all N clips, see the module.
        starts: (N, T) int64, where each frame's non-zeros begin.
        clips: (B,) int64, which of the N clips this batch is; a batch copies nothing on a CPU.
        regions: R.
        across: on a GPU, where there is memory for it: the same of all N clips by regions, so that its rows are the R
            regions and its columns the D channels. The gradient of glimpses is faster with it.
        offsets: on a GPU: (B, 2) int64, by how much the batch is shifted (:mod:`han_core.cubes.shift`). What is
            computed is that of the shifted cubes, while they themselves stay where they are.
    """

    counts: Tensor
    columns: Tensor
    values: Tensor
    starts: Tensor
    clips: Tensor
    regions: int
    across: "SparseCubes | None" = None
    offsets: Tensor | None = None

    @classmethod
    def empty(
        cls,
        clips: int,
        frames: int,
        channels: int,
        regions: int,
        nonzeros: int,
        *,
        device: torch.device | None = None,
        pin: bool = False,
    ) -> "SparseCubes":
        """Memory for N clips, to be filled by :meth:`put`.

        Args:
            pin: page-locked memory, from which a GPU copies while the host goes on.
        """
        where = {"device": device, "pin_memory": pin}
        counts = torch.empty(clips, frames, channels, dtype=_torch_type(count_type(regions)), **where)
        sparse_torch.numbers(counts).zero_()
        columns = torch.empty(nonzeros, dtype=_torch_type(column_type(regions)), **where)
        values = torch.empty(nonzeros, dtype=torch.float16, **where)
        starts = torch.zeros(clips, frames, dtype=torch.int64, **where)
        return cls(counts, columns, values, starts, torch.arange(clips, **where), regions)

    @classmethod
    def of(cls, rows: Sequence[SparseRows]) -> "SparseCubes":
        """The clips given, one after the other."""
        frames, channels = rows[0].counts.shape
        cubes = cls.empty(len(rows), frames, channels, rows[0].regions, sum(len(clip.values) for clip in rows))
        place = 0
        for number, clip in enumerate(rows):
            cubes.put(number, place, clip)
            place += len(clip.values)
        return cubes

    @classmethod
    def from_dense(cls, cubes: Tensor) -> "SparseCubes":
        """cubes (N, T, D, R) float16."""
        return cls.of([SparseRows.from_dense(clip) for clip in cubes.numpy()])

    def put(self, number: int, place: int, clip: SparseRows) -> None:
        """Store clip ``number``, its non-zeros from ``place`` on. Different clips may be put by different threads."""
        counts = self.counts.numpy()
        counts[number] = clip.counts
        self.columns.numpy()[place : place + len(clip.columns)] = clip.columns
        self.values.numpy()[place : place + len(clip.values)] = clip.values
        ends = np.cumsum(clip.counts.sum(axis=1, dtype=np.int64))
        self.starts.numpy()[number] = place + np.concatenate(([0], ends[:-1]))

    def put_all(self, clips: slice, place: int, other: "SparseCubes") -> None:
        """Store all N clips of another, on whatever device, as those of these numbers, their non-zeros from ``place``
        on."""
        self.counts[clips].copy_(other.counts)
        self.starts[clips].copy_(other.starts + place)
        self.columns[place : place + len(other.columns)].copy_(other.columns)
        self.values[place : place + len(other.values)].copy_(other.values)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, T, D, R)."""
        return len(self.clips), self.counts.shape[1], self.counts.shape[2], self.regions

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def by_kernels(self) -> bool:
        """Whether products are computed from the rows on a GPU."""
        return gpu_kernels.by_kernels(self.device)

    @property
    def bytes(self) -> int:
        """Memory of all N clips, without ``across``."""
        clips, frames, channels = self.counts.shape
        return self.bytes_of(clips * frames, channels, self.regions, len(self.values))

    @staticmethod
    def bytes_of(frames: int, rows: int, columns: int, nonzeros: int) -> int:
        """Memory of cubes of so many frames of all clips together, rows, columns and non-zeros."""
        counts, numbers = count_type(columns).itemsize, column_type(columns).itemsize
        return nonzeros * (numbers + 2) + frames * (rows * counts + 8)

    def select(self, clips: Sequence[int] | Tensor) -> "SparseCubes":
        """The batch of these clips, numbered within this batch."""
        return replace(self, clips=self.clips[torch.as_tensor(clips, device=self.clips.device)])

    def gathered(self, *, pin: bool = False) -> "SparseCubes":
        """The batch's clips alone, one after the other, in memory of their own on the CPU; without ``across``.

        Args:
            pin: as of :meth:`empty`.
        """
        clips, starts = self.clips.numpy(), self.starts.numpy()
        counts = self.counts.numpy()
        sizes = counts[clips].sum(axis=(1, 2), dtype=np.int64)
        places = np.concatenate(([0], np.cumsum(sizes)))
        own = SparseCubes.empty(*self.shape, int(places[-1]), pin=pin)
        to_counts, to_starts = own.counts.numpy(), own.starts.numpy()

        def copy(first: int, last: int) -> None:
            for b in range(first, last):
                begin = starts[clips[b], 0]
                to_counts[b] = counts[clips[b]]
                to_starts[b] = starts[clips[b]] - begin + places[b]
                own.columns[places[b] : places[b + 1]] = self.columns[begin : begin + sizes[b]]
                own.values[places[b] : places[b + 1]] = self.values[begin : begin + sizes[b]]

        _in_parts(len(clips), copy)
        return own

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "SparseCubes":
        """The same on another device. Of a batch in the memory of the host, its clips alone are moved.

        Args:
            non_blocking: go to a GPU through pinned memory, so that the host need not wait.
        """
        if self.device == device:
            return self
        source = self
        if self.device.type == "cpu":
            pin = non_blocking and device.type == "cuda"
            source = self.gathered(pin=pin) if pin or not self._is_whole() else self
        return source._moved(device, non_blocking)

    def _moved(self, device: torch.device, non_blocking: bool) -> "SparseCubes":
        own = {name: getattr(self, name) for name in ("counts", "columns", "values", "starts", "clips", "offsets")}
        moved = {name: v.to(device, non_blocking=non_blocking) for name, v in own.items() if v is not None}
        across = None if self.across is None else self.across._moved(device, non_blocking)
        return replace(self, across=across, **moved)

    def _is_whole(self) -> bool:
        """Whether this batch is all N clips in order."""
        clips = len(self.counts)
        return len(self.clips) == clips and torch.equal(self.clips, torch.arange(clips))

    def with_across(self) -> "SparseCubes":
        """The same with the transposed copy."""
        clips, frames, channels = self.counts.shape
        across = SparseCubes.empty(clips, frames, self.regions, channels, len(self.values), device=self.device)
        sparse_torch.turn_round(self, across)
        return replace(self, across=across)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, T, D, R) on the same device."""
        if self.device.type == "cpu" and dtype == torch.float32:
            return self._dense_on_cpu()
        if self.by_kernels:
            from han_core.cubes import sparse_cuda

            return sparse_cuda.expanded(self, dtype)
        return sparse_torch.expanded(self, dtype)

    def glimpse(self, t: int, weights: Tensor) -> Tensor:
        """Eq. 4 at frame t: weights (B, R) float32 -> (B, D) float32, on a CPU or by kernels."""
        return self.glimpses(t, weights.unsqueeze(0))[0] if self.by_kernels else self._glimpse_on_cpu(t, weights)

    def glimpses(self, t: int, weights: Tensor) -> Tensor:
        """Eq. 4 by kernels at S frames from t on: weights (S, B, R) float32 -> (S, B, D) float32."""
        from han_core.cubes import sparse_cuda

        out = weights.new_empty(*weights.shape[:2], self.counts.shape[2])
        sparse_cuda.glimpse_into(out, self, t, weights)
        return out

    def means(self) -> Tensor:
        """(B, T, D) float32 on the same device: mean over the regions."""
        if not self.by_kernels:
            return self.moments()[0]
        clips, frames, _, regions = self.shape
        weights = torch.full((1, clips, regions), 1 / regions, device=self.device)
        return self.glimpses(0, weights.expand(frames, -1, -1)).transpose(0, 1)

    def _glimpse_on_cpu(self, t: int, weights: Tensor) -> Tensor:
        out = torch.empty(len(self.clips), self.counts.shape[2])
        arrays = (*self._arrays(), t, weights.contiguous().numpy(), out.numpy())
        _in_parts(len(self.clips), lambda first, last: kernels.glimpse(*arrays, first, last))
        return out

    def regions_of(self, t: int, gradient: Tensor) -> Tensor:
        """The transposed product at frame t: gradient (B, D) float32 -> (B, R) float32, on a CPU or by kernels."""
        if self.by_kernels:
            from han_core.cubes import sparse_cuda

            out = gradient.new_zeros(len(self.clips), self.regions)
            sparse_cuda.regions_into(out, self, t, gradient)
            return out
        out = torch.empty(len(self.clips), self.regions)
        arrays = (*self._arrays(), t, gradient.contiguous().numpy(), out.numpy())
        _in_parts(len(self.clips), lambda first, last: kernels.regions(*arrays, first, last))
        return out

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean over the regions of each channel and of its square, (B, T, D) float32 each, on the CPU."""
        if self.device.type != "cpu":
            dense = self.dense(torch.float32)
            return dense.mean(dim=3).cpu(), dense.square().mean(dim=3).cpu()
        sums, squares = torch.empty(self.shape[:3]), torch.empty(self.shape[:3])
        counts, _, values, starts, clips = self._arrays()
        arrays = (counts, values, starts, clips, sums.numpy(), squares.numpy())
        _in_parts(len(self.clips), lambda first, last: kernels.moments(*arrays, first, last))
        return sums / self.regions, squares / self.regions

    def _arrays(self) -> tuple[np.ndarray, ...]:
        values = self.values.numpy().view(np.uint16)
        return self.counts.numpy(), self.columns.numpy(), values, self.starts.numpy(), self.clips.numpy()

    def _dense_on_cpu(self) -> Tensor:
        out = torch.empty(self.shape)
        counts, columns, values, starts, clips = self._arrays()
        dense = out.numpy().reshape(len(clips), -1, self.regions)

        def part(first: int, last: int) -> None:
            for b in range(first, last):
                place = starts[clips[b], 0]
                kernels.unpack_float(counts[clips[b]].reshape(-1), columns[place:], values[place:], dense[b])

        _in_parts(len(clips), part)
        return out


def _torch_type(dtype: np.dtype) -> torch.dtype:
    return torch.uint8 if dtype == np.uint8 else torch.uint16


def _in_parts(count: int, work: Callable[[int, int], None]) -> None:
    """work(first, last) over parts of 0 .. count, one per thread of torch. The parts share no result."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    parts = list(itertools.pairwise(bounds))
    others = [_pool(threads, os.getpid()).submit(work, *part) for part in parts[1:]]
    work(*parts[0])
    for other in others:
        other.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay: there are a hundred products a batch. One pool a process, for a fork inherits no threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"sparse-{process}")
