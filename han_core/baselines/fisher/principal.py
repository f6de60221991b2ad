"""Principal directions of vectors too long for a covariance matrix and too many for memory.

Subspace iteration from random directions, the usual randomised singular value decomposition (Halko, Martinsson and
Tropp 2011) without a matrix that is as tall as the sample: each pass over the rows multiplies the directions with the
sample's covariance, block by block.
"""

import numpy as np

from han_core.baselines.fisher.one_thread import eigenvectors, in_order, inner, one_thread, times
from han_core.baselines.fisher.row_store import RowStore

_BLOCK = 256  # rows
_COLUMNS = 8192
_MORE = 10  # directions than are wanted, which makes those converge sooner
_PASSES = 3
_NOTHING = 1e-7  # of the largest: directions of a smaller length have been lost in rounding


def principal_directions(rows: RowStore, numbers: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """The directions of largest variance of some rows, approximately.

    Memory: four arrays of (count + 10, length) float32 and a block of 256 rows. Five passes over the rows.

    The same bytes by however many cores.

    Args:
        numbers: of the rows.

    Returns:
        (count, length) float32, orthonormal, the largest first, the entry of largest magnitude of each positive. Where
        the rows vary in fewer directions, the rest are 0.
    """
    mean = np.zeros(rows.length)
    for block in rows.blocks(numbers, _BLOCK):
        mean += block.sum(0, dtype=np.float64)
    mean = (mean / max(1, len(numbers))).astype(np.float32)
    random = np.random.default_rng(seed)
    directions = _orthonormal(random.standard_normal((min(count + _MORE, rows.length), rows.length), np.float32))
    for _ in range(_PASSES):
        directions = _orthonormal(_times_covariance(rows, numbers, mean, directions)[0])
    found = np.zeros((count, rows.length), np.float32)
    if not len(directions):  # the rows do not vary at all
        return found
    _, products = _times_covariance(rows, numbers, mean, directions)
    values, rotation = (part[:count] for part in eigenvectors(products))
    turned = times(rotation.astype(np.float32), directions)
    turned[values <= _NOTHING * values[0]] = 0
    largest = np.abs(turned).argmax(1)
    found[: len(turned)] = turned * np.sign(turned[np.arange(len(turned)), largest])[:, None]
    return found


def _times_covariance(
    rows: RowStore, numbers: np.ndarray, mean: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Directions times the scatter of the rows about their mean, and the scatter of the projected rows."""
    moved = np.zeros_like(directions)
    scatter = np.zeros((len(directions),) * 2)
    left = len(numbers)
    for block in rows.blocks(numbers, _BLOCK):
        block -= mean
        block[left:] = 0
        left -= len(block)
        projected = inner(block, directions)
        moved += times(projected.T, block)
        with one_thread():
            scatter += (projected.T @ projected).astype(np.float64)
    return moved, scatter


def _orthonormal(directions: np.ndarray) -> np.ndarray:
    """Orthonormal rows of the same span; twice, because what is nearly parallel comes out inexact the first time."""
    for _ in range(2):
        values, vectors = eigenvectors(_inner_products(directions))
        kept = values > _NOTHING**2 * values.max(initial=0)
        directions = times((vectors[kept] / np.sqrt(values[kept, None])).astype(np.float32), directions)
    return directions


def _inner_products(directions: np.ndarray) -> np.ndarray:
    """In float64, whose precision the squares of lengths need; a part of the columns at a time."""

    def part(start: int) -> np.ndarray:
        columns = directions[:, start : start + _COLUMNS].astype(np.float64)
        return columns @ columns.T

    products = np.zeros((len(directions),) * 2)
    for found in in_order(part, range(0, directions.shape[1], _COLUMNS)):
        products += found
    return products
