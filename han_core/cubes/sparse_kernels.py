"""The inner loops over sparse cubes on the CPU, compiled by Numba.

Layout and symbols: see :mod:`han_core.cubes.sparse`. Numbers of float16 are passed as their bits (uint16), because
Numba has no such type on CPUs; one LLVM instruction widens them.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from han_core.devices import compiled


@intrinsic
def _widened(typing_context: object, bits: types.Integer) -> tuple:
    """float32 of the float16 whose bits are given (uint16)."""

    def code(context: object, builder: ir.IRBuilder, signature: object, arguments: tuple) -> ir.Value:
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), code


@compiled
def count_nonzeros(bits: np.ndarray, counts: np.ndarray) -> int:
    """Non-zeros of each row of ``bits`` (rows, R) into ``counts`` (rows,); returns their sum.

    -0.0 counts as non-zero, so that it survives.
    """
    total = 0
    for row in range(bits.shape[0]):
        count = 0
        for i in range(bits.shape[1]):
            count += bits[row, i] != 0
        counts[row] = count
        total += count
    return total


@compiled
def pack(bits: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Places and bits of the non-zeros of ``bits`` (rows, R), in order."""
    place = 0
    size = columns.shape[0]
    for row in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            value = bits[row, i]
            # Written always and kept only where it counts: a branch here would be mispredicted all the time.
            if place < size:
                columns[place] = i
                values[place] = value
            place += value != 0


@compiled
def shift(
    counts: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    side: int,
    x: int,
    y: int,
    to_counts: np.ndarray,
    to_columns: np.ndarray,
    to_values: np.ndarray,
) -> int:
    """Rows whose regions, of a map of ``side`` rows and columns, moved by x and y; those that left it are gone. Returns
    how many non-zeros are left, which lie at the start of ``to_columns`` and ``to_values``."""
    place = kept = 0
    for row in range(counts.shape[0]):
        before = kept
        for _ in range(counts[row]):
            column = columns[place] % side + x
            line = columns[place] // side + y
            if 0 <= column < side and 0 <= line < side:
                to_columns[kept] = line * side + column
                to_values[kept] = values[place]
                kept += 1
            place += 1
        to_counts[row] = kept - before
    return kept


@compiled
def unpack(counts: np.ndarray, columns: np.ndarray, values: np.ndarray, bits: np.ndarray) -> None:
    """The dense rows, bits (rows, R), of :func:`pack`."""
    place = 0
    for row in range(bits.shape[0]):
        bits[row, :] = 0
        for _ in range(counts[row]):
            bits[row, columns[place]] = values[place]
            place += 1


@compiled
def unpack_float(counts: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray) -> None:
    """As :func:`unpack`, into float32."""
    place = 0
    for row in range(dense.shape[0]):
        dense[row, :] = 0
        for _ in range(counts[row]):
            dense[row, columns[place]] = _widened(values[place])
            place += 1


@compiled
def glimpse(
    counts: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    clips: np.ndarray,
    t: int,
    weights: np.ndarray,
    out: np.ndarray,
    first: int,
    last: int,
) -> None:
    """out (B, D) = sum over the regions of weights (B, R) times the cube of frame t, for clips first to last of B."""
    for b in range(first, last):
        clip = clips[b]
        place = starts[clip, t]
        for d in range(counts.shape[2]):
            end = place + counts[clip, t, d]
            total = np.float32(0)
            while place < end:
                total += weights[b, columns[place]] * _widened(values[place])
                place += 1
            out[b, d] = total


@compiled
def regions(
    counts: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    clips: np.ndarray,
    t: int,
    gradient: np.ndarray,
    out: np.ndarray,
    first: int,
    last: int,
) -> None:
    """out (B, R) = sum over the channels of gradient (B, D) times the cube of frame t, for clips first to last of B."""
    for b in range(first, last):
        clip = clips[b]
        place = starts[clip, t]
        out[b, :] = 0
        for d in range(counts.shape[2]):
            end = place + counts[clip, t, d]
            factor = gradient[b, d]
            while place < end:
                out[b, columns[place]] += factor * _widened(values[place])
                place += 1


@compiled
def moments(
    counts: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    clips: np.ndarray,
    sums: np.ndarray,
    squares: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Sum and sum of squares over the regions, (B, T, D) each, for clips first to last of B."""
    for b in range(first, last):
        clip = clips[b]
        for t in range(counts.shape[1]):
            place = starts[clip, t]
            for d in range(counts.shape[2]):
                end = place + counts[clip, t, d]
                total, energy = np.float32(0), np.float32(0)
                while place < end:
                    value = _widened(values[place])
                    total += value
                    energy += value * value
                    place += 1
                sums[b, t, d], squares[b, t, d] = total, energy
