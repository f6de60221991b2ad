"""The Fisher vector of a set of points under a mixture (Perronnin, Sanchez and Mensink 2010, as in VLFeat).

With q the posterior probabilities of N points x, for each Gaussian k with weight w, mean m and deviation s::

    u_k = sum q_k (x - m_k) / s_k / (N sqrt w_k)
    v_k = sum q_k [((x - m_k) / s_k)^2 - 1] / (N sqrt(2 w_k))

Derivatives by the weights are left out. Both follow from sums over the points, which can be taken over parts first.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from han_core.baselines.fisher.mixture import Mixture


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over points, each shared out among the K Gaussians by its posterior probabilities q.

    Those of two sets of points add up to those of both: parts of a clip, or several clips, of the same mixture.
    """

    s0: np.ndarray
    """(K,) float64: sum of q."""
    s1: np.ndarray
    """(K, d) float64: sum of q x."""
    s2: np.ndarray
    """(K, d) float64: sum of q x^2."""
    count: int
    """N, how many points."""

    def __add__(self, other: Self) -> "Statistics":
        return Statistics(self.s0 + other.s0, self.s1 + other.s1, self.s2 + other.s2, self.count + other.count)


def statistics(points: np.ndarray, mixture: Mixture) -> Statistics:
    """Statistics of points (n, d) float32; n may be 0.

    Raises:
        ValueError: the points have another number of dimensions than the mixture.
    """
    moments, _ = mixture.moments(points)
    return statistics_of(moments, mixture, len(points))


def statistics_of(moments: np.ndarray, mixture: Mixture, count: int) -> Statistics:
    """Statistics of ``count`` points from their moments (K, 2d + 1) about ``mixture.centre``."""
    d, centre = mixture.means.shape[1], mixture.centre.astype(np.float64)
    about2, about1, s0 = moments[:, :d], moments[:, d : 2 * d], moments[:, 2 * d]
    shifted = centre * s0[:, None]
    return Statistics(s0, about1 + shifted, about2 + centre * (2 * about1 + shifted), count)


def fisher_vector(found: Statistics, mixture: Mixture) -> np.ndarray:
    """The Fisher vector (2 K d,) float32: all u, then all v, Gaussian by Gaussian. Of no points it is 0."""
    if not found.count:
        return np.zeros(2 * mixture.means.size, np.float32)
    weights, means, variances = (
        values.astype(np.float64) for values in (mixture.weights[:, None], mixture.means, mixture.variances)
    )
    s0 = found.s0[:, None]
    u = (found.s1 - means * s0) / np.sqrt(variances * weights)
    v = ((found.s2 - means * (2 * found.s1 - means * s0)) / variances - s0) / np.sqrt(2 * weights)
    return (np.concatenate([u, v]).ravel() / found.count).astype(np.float32)


def improved(vector: np.ndarray) -> np.ndarray:
    """Signed square root, then length 1, of a vector (n,) float32; 0 stays 0 (the "improved" Fisher vector)."""
    # The squared length of the rooted vector. NumPy sums it, not BLAS, whose threads would decide the last bits.
    length = np.sqrt(np.abs(vector).sum(dtype=np.float64))
    if not length:
        return np.zeros_like(vector)
    return (np.sign(vector) * np.sqrt(np.abs(vector)) / length).astype(vector.dtype)
