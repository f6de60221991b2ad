"""How good attention maps are, where the place of the actor is known: mass inside its box, and the pointing game.

A map has R = K x K weights, one a region, that sum to one. The picture was rescaled to the square that the net sees, so
whatever its ratio region (row, column) is the K-th part of its height and width at that place, and its weight is
spread evenly over it.

``mass``
    Share of a map's weight that lies inside the box; a region that the box covers in part counts in part.
``pointing``
    Whether the middle of the strongest region lies inside the box (the pointing game of Zhang et al. 2016, without
    their tolerance of 15 pixels). Where several regions are strongest, the share of them whose middle does.

Three maps that know nothing of the clip are the measure: :func:`uniform_map`, :func:`centre_prior`, and the maps
themselves in random order, whose expected score :func:`shuffled_quality` gives exactly.
"""

from dataclasses import dataclass

import numpy as np

CENTRE_DEVIATION = 0.25
"""Standard deviation of the centre prior, as a share of the picture's side."""


@dataclass(frozen=True)
class AttentionQuality:
    """Means over frames."""

    mass: float
    pointing: float


def map_quality(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> AttentionQuality:
    """Score each frame's map against the box of the same frame.

    Args:
        maps: (T, R) attention, R a square number.
        boxes: (T, 4) x, y, width, height of the actor in pixels.
        size: width and height of the picture in the same pixels.

    Raises:
        ValueError: shapes that do not fit together, or no frames.
    """
    inside, centres = _coverage(maps, boxes, size)
    return AttentionQuality(float((maps * inside).sum(1).mean()), float(_pointing(maps, centres).diagonal().mean()))


def shuffled_quality(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> AttentionQuality:
    """Expected score of the same maps in a random order: every map against every frame's box.

    Maps that follow the actor score higher in their own order; maps that stay at one place score the same.
    Arguments and errors as :func:`map_quality`.
    """
    inside, centres = _coverage(maps, boxes, size)
    return AttentionQuality(float((maps @ inside.T).mean()), float(_pointing(maps, centres).mean()))


def uniform_map(regions: int) -> np.ndarray:
    """(R,) the map of a model without attention."""
    return np.full(regions, 1 / regions)


def centre_prior(regions: int, deviation: float = CENTRE_DEVIATION) -> np.ndarray:
    """(R,) a Gaussian in the middle of the picture: people film what matters in the middle.

    Args:
        regions: R, a square number.
        deviation: as a share of the picture's side.
    """
    grid = _side(regions)
    places = (np.arange(grid) + 0.5) / grid - 0.5
    falls = np.exp(-0.5 * (places / deviation) ** 2)
    prior = np.outer(falls, falls).ravel()
    return prior / prior.sum()


def effective_regions(maps: np.ndarray) -> float:
    """Over how many regions the maps (T, R) are spread: e to the entropy, mean over frames; 1 to R."""
    logs = np.log(np.where(maps > 0, maps, 1.0))
    return float(np.exp(-(maps * logs).sum(1)).mean())


def region_coverage(boxes: np.ndarray, size: tuple[int, int], grid: int) -> np.ndarray:
    """Which share of each region's area lies inside each box: (T, grid * grid), 0 to 1.

    Args:
        boxes: (T, 4) x, y, width, height in pixels.
        size: width and height of the picture in pixels.
        grid: K, regions per side.
    """
    edges = np.arange(grid + 1) / grid
    shares = []
    for axis, side in enumerate(size):
        low = boxes[:, axis, None] / side
        high = (boxes[:, axis, None] + boxes[:, axis + 2, None]) / side
        overlap = np.minimum(high, edges[None, 1:]) - np.maximum(low, edges[None, :-1])
        shares.append(np.clip(overlap, 0, None) * grid)
    across, down = shares
    return (down[:, :, None] * across[:, None, :]).reshape(len(boxes), grid * grid)


def _coverage(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(T, R) share of each region inside its frame's box, and whether the region's middle is."""
    if maps.ndim != 2 or boxes.shape != (len(maps), 4) or not len(maps):
        raise ValueError(f"maps {maps.shape} and boxes {boxes.shape} must be (T, R) and (T, 4), T at least 1")
    grid = _side(maps.shape[1])
    middle = (np.arange(grid) + 0.5) / grid
    hits = []
    for axis, side in enumerate(size):
        low = boxes[:, axis, None] / side
        hits.append((low <= middle) & (middle < low + boxes[:, axis + 2, None] / side))
    across, down = hits
    centres = (down[:, :, None] & across[:, None, :]).reshape(len(maps), -1)
    return region_coverage(boxes, size, grid), centres


def _pointing(maps: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(T, T): row the map, column the frame whose box it is held against."""
    strongest = maps == maps.max(axis=1, keepdims=True)
    return (strongest / strongest.sum(1, keepdims=True)) @ centres.T.astype(float)


def _side(regions: int) -> int:
    grid = round(regions**0.5)
    if grid * grid != regions:
        raise ValueError(f"{regions} regions are not a square grid")
    return grid
