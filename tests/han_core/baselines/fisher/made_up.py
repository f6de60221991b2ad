"""Mixtures, points and positions for tests of Fisher vectors."""

import numpy as np

from han_core.baselines.fisher.mixture import Mixture
from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.subvolumes import Positions, Subvolume


def some_mixture(gaussians: int = 5, d: int = 4, seed: int = 0, offset: float = 0.0) -> Mixture:
    random = np.random.default_rng(seed)
    weights = random.random(gaussians) + 0.2
    means = random.standard_normal((gaussians, d)) + offset
    variances = random.random((gaussians, d)) + 0.1
    return Mixture(*(values.astype(np.float32) for values in (weights / weights.sum(), means, variances)))


def drawn_from(mixture: Mixture, count: int, seed: int = 0) -> np.ndarray:
    """Points (count, d) float32."""
    random = np.random.default_rng(seed)
    weights = mixture.weights.astype(np.float64)
    which = random.choice(len(weights), count, p=weights / weights.sum())
    noise = random.standard_normal((count, mixture.means.shape[1]))
    return (mixture.means[which] + np.sqrt(mixture.variances[which]) * noise).astype(np.float32)


def some_positions(count: int, frames: int, seed: int = 0) -> Positions:
    """Anywhere in a clip, edges included."""
    random = np.random.default_rng(seed)
    centres = random.random((count, 2)).astype(np.float32)
    centres[: count // 10] = np.round(centres[: count // 10] * 4) / 4
    return Positions(centres, random.integers(7, max(8, frames - 8), count))


def chosen(positions: Positions, subvolume: Subvolume, params: StackedParams) -> np.ndarray:
    """Which trajectories lie in a subvolume, from its edges in parts of the frame and in frames."""
    inside = np.ones(len(positions), bool)
    for values, (first, last), size in (
        (positions.centres[:, 0], subvolume.x, 1 / params.cells),
        (positions.centres[:, 1], subvolume.y, 1 / params.cells),
    ):
        inside &= (values >= first * size) & ((values < last * size) | (last == params.cells))
    first, last = (block * params.block_frames for block in subvolume.t)
    return inside & (positions.middles >= first) & (positions.middles < last)
