"""Principal component analysis: descriptors made short before a mixture is fitted to them."""

from dataclasses import dataclass

import numpy as np

from han_core.baselines.fisher.one_thread import eigenvectors, one_thread

_ROWS = 4096  # of a block in float64
_NOTHING = 1e-10  # of the largest variance: what lies below is rounding, and is never blown up by whitening


@dataclass(frozen=True, eq=False)
class Projection:
    """An affine map to fewer dimensions: ``components @ (x - mean)``."""

    mean: np.ndarray
    """(D,) float32."""
    components: np.ndarray
    """(d, D) float32, a row for each dimension that is kept."""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Project points (n, D) of a real type to (n, d) float32.

        Raises:
            ValueError: the points have another number of dimensions.
        """
        if points.ndim != 2 or points.shape[1] != len(self.mean):
            raise ValueError(f"points of shape {points.shape} where (n, {len(self.mean)}) are projected")
        with one_thread():
            return (points.astype(np.float32, copy=False) - self.mean) @ self.components.T


def fit_pca(sample: np.ndarray, dimensions: int, *, whiten: bool = False, floor: float = 0.0) -> Projection:
    """The directions of largest variance of a sample, the largest first.

    The signs are fixed (the entry of largest magnitude of each direction is positive). Sums are in float64. Directions
    in which the sample does not vary come last; whitened, they are mapped to 0 instead of a division by nothing.

    Args:
        sample: (n, D) of a real type, n >= 1.
        dimensions: d, 1 to D.
        whiten: scale each direction to variance 1.
        floor: smallest variance to divide by, in parts of the largest; directions of less keep a variance below 1.

    Raises:
        ValueError: the sample is empty, not finite, or has fewer than d dimensions.
    """
    if sample.ndim != 2 or not len(sample):
        raise ValueError("there is no sample to analyse")
    if not 1 <= dimensions <= sample.shape[1]:
        raise ValueError(f"{sample.shape[1]} dimensions cannot be reduced to {dimensions}")
    mean = sample.mean(0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError("the sample holds numbers that are not finite")
    values, components = (found[:dimensions] for found in eigenvectors(_covariance(sample, mean)))
    largest = np.abs(components).argmax(1)
    components = components * np.sign(components[np.arange(dimensions), largest])[:, None]
    if whiten:
        varies = values > _NOTHING * max(values[0], np.finfo(np.float64).tiny)
        scales = np.sqrt(np.where(varies, np.maximum(values, floor * values[0]), 1.0))
        components = np.where(varies[:, None], components / scales[:, None], 0.0)
    return Projection(mean.astype(np.float32), np.ascontiguousarray(components, np.float32))


def _covariance(sample: np.ndarray, mean: np.ndarray) -> np.ndarray:
    total = np.zeros((sample.shape[1],) * 2)
    with one_thread():
        for start in range(0, len(sample), _ROWS):
            block = sample[start : start + _ROWS] - mean
            total += block.T @ block
    return total / len(sample)
