"""Trajectories that come from no clip."""

import numpy as np

from han_core.baselines.trajectories.trajectories import DIMENSIONS, HISTOGRAMS, Trajectories, rounded

FRAMES, WIDTH, HEIGHT = 40, 320, 240


def made_up(count: int, length: int = 15, seed: int = 0, **changed: np.ndarray) -> Trajectories:
    """Within a clip of :data:`FRAMES` frames of :data:`WIDTH` x :data:`HEIGHT` pixels."""
    random = np.random.default_rng(seed)
    points = random.uniform([60, 60], [260, 180], (count, 1, 2)) + random.uniform(-4, 4, (count, length + 1, 2)).cumsum(
        1
    )
    values = {
        "start": np.sort(random.integers(0, FRAMES - length, count)).astype(np.int32),
        "scale": random.integers(0, 6, count).astype(np.uint8),
        "points": rounded(points.astype(np.float32)),
        "warped": rounded(random.uniform(1, 4, (count, length, 2)).astype(np.float32)),
    }
    values |= {name: random.integers(0, 256, (count, DIMENSIONS[name])).astype(np.uint8) for name in HISTOGRAMS}
    return Trajectories(**values | changed)
