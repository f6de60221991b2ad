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
used as they are: a glimpse (eq. 4) costs one multiplication a non-zero, and nothing is ever expanded on a CPU.
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

from han_core.cubes import sparse_kernels as kernels


@dataclass(frozen=True)
class SparseRows:
    """One clip's cube (T, D, R), as it lies in its file.

    Example:
        >>> cube = np.zeros((1, 2, 4), np.float16)
        >>> cube[0, 1, 3] = 0.5
        >>> rows = SparseRows.from_dense(cube)
        >>> rows.counts.tolist(), rows.columns.tolist(), rows.values.tolist()
        ([[0, 1]], [3], [0.5])
        >>> bool((rows.dense() == cube).all())
        True
    """

    counts: np.ndarray
    """(T, D) uint8 or uint16."""
    columns: np.ndarray
    """(nnz,) uint8 or uint16."""
    values: np.ndarray
    """(nnz,) float16."""
    regions: int

    @classmethod
    def from_dense(cls, cube: np.ndarray) -> "SparseRows":
        """cube (T, D, R) float16."""
        frames, channels, regions = cube.shape
        bits = np.ascontiguousarray(cube, np.float16).view(np.uint16).reshape(-1, regions)
        counts = np.empty(len(bits), count_type(regions))
        total = kernels.count_nonzeros(bits, counts)
        columns, values = np.empty(total, column_type(regions)), np.empty(total, np.uint16)
        kernels.pack(bits, columns, values)
        return cls(counts.reshape(frames, channels), columns, values.view(np.float16), regions)

    def contradiction(self) -> str:
        """What is wrong with rows that come from elsewhere; "" if nothing is. Compiled loops follow counts and columns
        wherever they lead, so this comes first; types and shapes are the caller's to check."""
        if int(self.counts.sum(dtype=np.int64)) != len(self.columns):
            return "counts and columns of its cube do not fit together"
        if not len(self.columns):
            return ""
        if int(self.counts.max()) > self.regions or int(self.columns.max()) >= self.regions:
            return f"its cube has a column beyond the {self.regions} regions"
        # Infinities and NaN of either sign, without a copy: read as integers they are the largest positive ones, and
        # the negative ones nearest to zero.
        bits = self.values.view(np.int16)
        if int(bits.max()) >= 0x7C00 or (int(bits.min()) < 0 and int(bits[bits < 0].max()) >= -0x0400):
            return "its cube holds a value that is not a number"
        return ""

    def dense(self) -> np.ndarray:
        """(T, D, R) float16."""
        bits = np.empty((self.counts.size, self.regions), np.uint16)
        kernels.unpack(self.counts.reshape(-1), self.columns, self.values.view(np.uint16), bits)
        return bits.view(np.float16).reshape(*self.counts.shape, self.regions)


def count_type(regions: int) -> np.dtype:
    """Smallest type that counts to ``regions``."""
    return np.dtype(np.uint8 if regions <= 255 else np.uint16)


def column_type(regions: int) -> np.dtype:
    """Smallest type that numbers ``regions`` from 0."""
    return np.dtype(np.uint8 if regions <= 256 else np.uint16)


@dataclass(frozen=True)
class SparseCubes:
    """Cubes of one stream for a batch of B clips, out of N that lie in memory or on a GPU.

    Attributes:
        counts, columns, values: of all N clips, see the module.
        starts: (N, T) int64, where each frame's non-zeros begin.
        clips: (B,) int64, which of the N clips this batch is; a batch copies nothing on a CPU.
        regions: R.
    """

    counts: Tensor
    columns: Tensor
    values: Tensor
    starts: Tensor
    clips: Tensor
    regions: int

    @classmethod
    def empty(cls, clips: int, frames: int, channels: int, regions: int, nonzeros: int) -> "SparseCubes":
        """Memory for N clips, to be filled by :meth:`put`."""
        counts = torch.from_numpy(np.zeros((clips, frames, channels), count_type(regions)))
        columns = torch.from_numpy(np.empty(nonzeros, column_type(regions)))
        values = torch.empty(nonzeros, dtype=torch.float16)
        starts = torch.zeros(clips, frames, dtype=torch.int64)
        return cls(counts, columns, values, starts, torch.arange(clips), regions)

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

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, T, D, R)."""
        return len(self.clips), self.counts.shape[1], self.counts.shape[2], self.regions

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def bytes(self) -> int:
        """Memory of all N clips."""
        return sum(t.numel() * t.element_size() for t in (self.counts, self.columns, self.values, self.starts))

    def select(self, clips: Sequence[int] | Tensor) -> "SparseCubes":
        """The batch of these clips, numbered within this batch."""
        return replace(self, clips=self.clips[torch.as_tensor(clips, device=self.clips.device)])

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "SparseCubes":
        """The same on another device."""
        if self.device == device:
            return self
        names = ("counts", "columns", "values", "starts", "clips")
        return replace(self, **{n: getattr(self, n).to(device, non_blocking=non_blocking) for n in names})

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, T, D, R) on the same device."""
        if self.device.type == "cpu" and dtype == torch.float32:
            return self._dense_on_cpu()
        return self._dense_anywhere(dtype)

    def glimpse(self, t: int, weights: Tensor) -> Tensor:
        """Eq. 4 at frame t on a CPU: weights (B, R) float32 -> (B, D) float32."""
        out = torch.empty(len(self.clips), self.counts.shape[2])
        arrays = (*self._arrays(), t, weights.contiguous().numpy(), out.numpy())
        _in_parts(len(self.clips), lambda first, last: kernels.glimpse(*arrays, first, last))
        return out

    def regions_of(self, t: int, gradient: Tensor) -> Tensor:
        """The transposed product at frame t on a CPU: gradient (B, D) float32 -> (B, R) float32."""
        out = torch.empty(len(self.clips), self.regions)
        arrays = (*self._arrays(), t, gradient.contiguous().numpy(), out.numpy())
        _in_parts(len(self.clips), lambda first, last: kernels.regions(*arrays, first, last))
        return out

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean over the regions of each channel and of its square, (B, T, D) float32 each, on the CPU."""
        if self.device.type != "cpu":
            dense = self._dense_anywhere(torch.float32)
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

    def _dense_anywhere(self, dtype: torch.dtype) -> Tensor:
        """Expand with torch's own operations, on any device.

        No place is written twice, so the result is the same in any order, and torch need not sort for it.
        """
        before = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("default")
        try:
            return self._scattered(dtype)
        finally:
            torch.set_deterministic_debug_mode(before)

    def _scattered(self, dtype: torch.dtype) -> Tensor:
        # For each of the n non-zeros of the batch: from where in the store it comes (place), and which row (b, t, d) of
        # the batch it belongs to (row). Its column is stored with it.
        counts = self.counts[self.clips].reshape(-1).to(torch.int64)  # (B * T * D,) non-zeros of each row
        sizes = counts.view(len(self.clips), -1).sum(dim=1)  # (B,) non-zeros of each clip
        total = int(sizes.sum())  # n
        out = torch.zeros(counts.numel() * self.regions, dtype=dtype, device=self.device)  # (B * T * D * R,)
        # Numbered through the batch, clip b's non-zeros are before[b] .. before[b] + sizes[b]; in the store they begin
        # where its first frame does. So a number becomes a place by adding the difference of the two beginnings.
        before = torch.cumsum(sizes, 0) - sizes  # (B,)
        place = torch.arange(total, device=self.device)  # (n,)
        place += torch.repeat_interleave(self.starts[self.clips, 0] - before, sizes, output_size=total)
        # Row r appears counts[r] times in a row.
        row = torch.repeat_interleave(torch.arange(len(counts), device=self.device), counts, output_size=total)  # (n,)
        out[row * self.regions + self.columns[place].to(torch.int64)] = self.values[place].to(dtype)
        return out.view(self.shape)


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
