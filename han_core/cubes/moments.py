"""What the glimpses of a set of clips are on average, by which a model standardises them."""

import torch
from torch import Tensor

from han_core.cubes.features import Features, Values
from han_core.cubes.prefetch import Prefetched
from han_core.cubes.sparse import SparseCubes


def glimpse_statistics(features: Features, *, batch: int = 16) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of the glimpse under the uniform map, where training starts.

    They are taken over all clips and frames of ``features`` (training clips only, or test clips would leak). The
    variance is at least that of a mean over independent regions, Var(region) / R: a channel whose regions cancel out
    in every frame would otherwise be blown up as soon as attention looks at one of them.

    Returns:
        mean, deviation: (streams, D) float32, streams in the order of ``features.batch``.
    """
    order = list(range(len(features.labels)))
    sums: Tensor | float = 0.0  # of the glimpse, its square, and the square of a region: (3, S, D)
    count = 0
    regions = 1
    for values, _ in Prefetched(features, [order[i : i + batch] for i in range(0, len(order), batch)]):
        regions = next(iter(values.values())).shape[3]
        means, squares = zip(*(_region_moments(cubes) for cubes in values.values()), strict=True)
        glimpses, energy = torch.stack(means).double(), torch.stack(squares).double()  # (S, B, T, D)
        sums = sums + torch.stack([moment.sum(dim=(1, 2)) for moment in (glimpses, glimpses.square(), energy)])
        count += glimpses.shape[1] * glimpses.shape[2]
    mean, square, energy = sums / count
    variance = torch.maximum(square - mean.square(), (energy - mean.square()) / regions).clamp(min=0)
    return mean.float(), variance.sqrt().float()


def _region_moments(cubes: Values) -> tuple[Tensor, Tensor]:
    """Mean over the regions of each channel and of its square, (B, T, D) each, on the CPU."""
    if isinstance(cubes, SparseCubes):
        return cubes.moments()
    cubes = cubes.float()
    return cubes.mean(dim=3).cpu(), cubes.square().mean(dim=3).cpu()
