"""Mixtures of Gaussians with diagonal covariances, fitted by expectation maximisation in blocks of float32.

With y a point about the mixture's mean, the logarithm of weight times density of Gaussian k is linear in [y^2, y, 1],
so one matrix product gives it for all points and Gaussians, and a second one the sums over points that both the
maximisation step and a Fisher vector are made of.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from han_core.baselines.fisher.one_thread import in_order, one_thread

BLOCK = 1024
"""Points that are weighed at a time: with 256 Gaussians their weights (1 MiB) stay in a core's own cache. Larger blocks
are no faster (measured to 8192)."""

SMALLEST_WEIGHT = 1e-6
"""Of a Gaussian. A Fisher vector divides by its root."""

VARIANCE_FLOOR = 1e-4
"""Smallest variance of a Gaussian in any dimension, in parts of the sample's largest one, where none is given."""

TOLERANCE = 1e-4
"""Nats a point: the fit ends with the first iteration that gains less."""

_PAD = 256  # points of a block are filled up with nothing to a multiple
_EMPTY = 1e-2  # points: a Gaussian that has fewer stays where it is
_START_POINTS = 100  # a Gaussian, among which the first centres are drawn
_START_ROUNDS = 10  # of k-means


@dataclass(frozen=True, eq=False)
class Mixture:
    """K Gaussians of d dimensions with diagonal covariances. The arrays are not changed."""

    weights: np.ndarray
    """(K,) float32, positive, of sum 1."""
    means: np.ndarray
    """(K, d) float32."""
    variances: np.ndarray
    """(K, d) float32, positive."""

    @cached_property
    def centre(self) -> np.ndarray:
        """(d,) float32: the mixture's mean, about which :meth:`moments` are taken, for precision."""
        with one_thread():
            return (self.weights.astype(np.float64) @ self.means).astype(np.float32)

    @cached_property
    def terms(self) -> np.ndarray:
        """(2d + 1, K) float32: what y^2, y and 1 are multiplied with to give log weight times density."""
        weights, variances = self.weights.astype(np.float64), self.variances.astype(np.float64)
        means = self.means.astype(np.float64) - self.centre
        constant = np.log(weights) - 0.5 * (np.log(2 * math.pi * variances) + means**2 / variances).sum(1)
        return np.concatenate([-0.5 / variances.T, (means / variances).T, constant[None]]).astype(np.float32)

    def moments(self, points: np.ndarray, *, by_all_cores: bool = False) -> tuple[np.ndarray, float]:
        """What points add up to, each shared out among the Gaussians by its posterior probabilities q.

        Args:
            points: (n, d) float32.
            by_all_cores: of this process, or by the one that asks; the same bytes either way.

        Returns:
            (K, 2d + 1) float64: sums over the points of q y^2, q y and q, where y are the points less ``centre``; and
            the sum of the points' log likelihoods in nats.

        Raises:
            ValueError: the points have another number of dimensions.
        """
        self._check(points)
        gaussians, d = self.means.shape
        total, likelihood = np.zeros((gaussians, 2 * d + 1)), 0.0

        def of_block(start: int) -> tuple[np.ndarray, float]:
            y, q, found = self._weigh(points[start : start + BLOCK], *self._scratch(min(BLOCK, len(points))))
            return q.T @ y, found

        blocks = range(0, len(points), BLOCK)
        with one_thread():
            for products, found in in_order(of_block, blocks) if by_all_cores else map(of_block, blocks):
                total += products
                likelihood += found
        return total, likelihood

    def grouped_moments(self, points: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
        """As :meth:`moments`, for each group of points by itself.

        Args:
            points: (n, d) float32. groups: (n,) int, ascending, 0 to count - 1.

        Returns:
            (count, K, 2d + 1) float64.

        Raises:
            ValueError: the points have another number of dimensions.
        """
        self._check(points)
        total = np.zeros((count, len(self.weights), 2 * points.shape[1] + 1))
        scratch = self._scratch(_PAD)
        with one_thread():
            for start in range(0, len(points), _PAD):
                y, q, _ = self._weigh(points[start : start + _PAD], *scratch)
                own = groups[start : start + _PAD]
                edges = [0, *(np.flatnonzero(np.diff(own)) + 1), len(own)]
                for first, last in pairwise(edges):
                    total[own[first]] += q[first:last].T @ y[first:last]
        return total

    def _check(self, points: np.ndarray) -> None:
        d = self.means.shape[1]
        if points.ndim != 2 or points.shape[1] != d:
            raise ValueError(f"points of shape {points.shape} for a mixture of {d} dimensions")

    def _scratch(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        gaussians, d = self.means.shape
        return np.empty((_padded(points), 2 * d + 1), np.float32), np.empty((_padded(points), gaussians), np.float32)

    def _weigh(self, block: np.ndarray, powers: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """[y^2, y, 1] / s of a block's points, s q, and the sum of their log likelihoods; s is what exponentials add up
        to. Both are filled up with rows that add nothing."""
        n, rows, d = len(block), _padded(len(block)), block.shape[1]
        y, q = powers[:rows], shares[:rows]
        np.subtract(block, self.centre, out=y[:n, d : 2 * d])
        np.square(y[:n, d : 2 * d], out=y[:n, :d])
        y[:n, 2 * d] = 1
        y[n:] = 0
        np.matmul(y, self.terms, out=q)
        largest = q.max(1, keepdims=True)
        q -= largest
        np.exp(q, out=q)
        sums = q.sum(1, keepdims=True)
        y /= sums  # the same as dividing q, which is larger
        return y, q, float((largest[:n] + np.log(sums[:n])).sum(dtype=np.float64))


def _padded(points: int) -> int:
    return -(-points // _PAD) * _PAD


def fit_mixture(
    sample: np.ndarray,
    gaussians: int,
    *,
    seed: int,
    iterations: int = 100,
    variance_floor: float = VARIANCE_FLOOR,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Mixture:
    """Fit a mixture by maximum likelihood.

    The start is k-means: centres drawn as k-means++ does among 100 points a Gaussian, then ten rounds on the whole
    sample. Expectation maximisation ends after ``iterations``, or with one that gains less than :data:`TOLERANCE`. No
    variance falls below ``variance_floor`` of the sample's largest, no weight below :data:`SMALLEST_WEIGHT`; a
    Gaussian that no point is near keeps its place. Each step is the best one within these bounds, so but for float32's
    rounding the likelihood never falls. There may be fewer points than Gaussians.

    The same sample and seed give the same bytes, by however many cores.

    Args:
        sample: (n, d) float32, n >= 1.
        gaussians: K.
        seed: of the drawing of the first centres.
        variance_floor: smallest variance, in parts of the sample's largest one.
        on_iteration: called with the iteration's number, from 1, and the mean log likelihood before its step.

    Raises:
        ValueError: the sample is empty or not finite.
    """
    sample = np.ascontiguousarray(sample, np.float32)
    if sample.ndim != 2 or not sample.size:
        raise ValueError("there is no sample to fit a mixture to")
    spread = sample.var(0, dtype=np.float64).max()
    if not np.isfinite(spread):
        raise ValueError("the sample holds numbers that are not finite")
    # A sample that does not vary at all: any variance will do that float32 can divide by.
    floor = max(variance_floor * spread, 1e-12)
    found = _start(sample, gaussians, floor, np.random.default_rng(seed))
    before = -math.inf
    for iteration in range(1, iterations + 1):
        moments, likelihood = found.moments(sample, by_all_cores=True)
        likelihood /= len(sample)
        if on_iteration is not None:
            on_iteration(iteration, likelihood)
        if likelihood - before < TOLERANCE:
            break
        found, before = _maximised(moments, found, floor), likelihood
    return found


def _maximised(moments: np.ndarray, before: Mixture, floor: float) -> Mixture:
    """The mixture that the points' moments about ``before.centre`` make most likely."""
    d = before.means.shape[1]
    counts = moments[:, 2 * d]
    alive = (counts > _EMPTY)[:, None]
    divisor = np.where(alive, counts[:, None], 1.0)
    means = moments[:, d : 2 * d] / divisor
    variances = np.maximum(moments[:, :d] / divisor - means**2, floor)
    means = np.where(alive, means + before.centre, before.means)
    return _mixture(counts, means, np.where(alive, variances, before.variances))


def _mixture(counts: np.ndarray, means: np.ndarray, variances: np.ndarray) -> Mixture:
    weights = counts / counts.sum()
    small = weights < SMALLEST_WEIGHT
    weights[~small] *= (1 - SMALLEST_WEIGHT * small.sum()) / weights[~small].sum()
    weights[small] = SMALLEST_WEIGHT
    return Mixture(*(np.ascontiguousarray(values, np.float32) for values in (weights, means, variances)))


def _start(sample: np.ndarray, gaussians: int, floor: float, random: np.random.Generator) -> Mixture:
    few = min(len(sample), _START_POINTS * gaussians)
    centres = _drawn_centres(sample[np.sort(random.choice(len(sample), few, replace=False))], gaussians, random)
    for _ in range(_START_ROUNDS):
        labels = _nearest(sample, centres)
        counts = np.bincount(labels, minlength=gaussians)[:, None]
        sums = _sums(sample, labels, gaussians)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres).astype(np.float32)
    labels = _nearest(sample, centres)
    counts = np.bincount(labels, minlength=gaussians)
    squares = _sums((sample - centres[labels]) ** 2, labels, gaussians) / np.maximum(counts, 1)[:, None]
    # What no point is near spreads over all of them, and finds its place in the first step.
    variances = np.where(counts[:, None] > 0, squares, sample.var(0, dtype=np.float64))
    return _mixture(counts.astype(np.float64), centres, np.maximum(variances, floor))


def _drawn_centres(points: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """k-means++: each centre a point drawn in proportion to its squared distance from the centres before it."""
    centres = np.empty((count, points.shape[1]), np.float32)
    distances = np.ones(len(points))
    for number in range(count):
        ends = distances.cumsum()
        # Where all points are centres already, it is the last one again.
        place = min(np.searchsorted(ends, random.random() * ends[-1], side="right"), len(points) - 1)
        centres[number] = points[place]
        from_it = np.square(points - centres[number]).sum(1, dtype=np.float64)
        distances = from_it if number == 0 else np.minimum(distances, from_it)
    return centres


def _nearest(sample: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) the centre nearest to each point."""
    half = 0.5 * np.square(centres).sum(1)
    found = in_order(
        lambda start: (sample[start : start + BLOCK] @ centres.T - half).argmax(1), range(0, len(sample), BLOCK)
    )
    return np.concatenate(list(found))


def _sums(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(count, d) float64: sums of the rows of each label."""
    return np.stack([np.bincount(labels, column, count) for column in values.T], axis=1)
