"""One clip's cube in sparse form, as it lies in its file. The layout is that of :mod:`han_core.cubes.sparse`."""

from dataclasses import dataclass

import numpy as np

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
