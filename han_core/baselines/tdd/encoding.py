"""From a clip's descriptors to one vector a channel."""

from collections.abc import Iterable, Mapping

import numpy as np

from han_core.baselines.fisher.codebook import Codebook
from han_core.baselines.fisher.vector import Statistics, fisher_vector, improved


def encode(parts: Iterable[Mapping[str, np.ndarray]], codebook: Codebook) -> dict[str, np.ndarray]:
    """Channel -> improved Fisher vector (2 K d,) float32, in the order of the codebook.

    Fisher vectors of several sizes of the net's input are added before the root and the division by their length. They
    are of as many tracks each, so that is the vector of all their descriptors together.

    Args:
        parts: channel -> (n, C) descriptors, of one size after the other; nothing, or n = 0, gives zeros.
        codebook: the same for all sizes.

    Raises:
        ValueError: a part has other channels, or numbers of dimensions, than the codebook.
    """
    totals: dict[str, Statistics] = {}
    for part in parts:
        if part.keys() != codebook.channels.keys():
            raise ValueError(f"channels {', '.join(part)} for a codebook of {', '.join(codebook.channels)}")
        for channel, descriptors in part.items():
            found = codebook.channels[channel].statistics(descriptors)
            totals[channel] = totals[channel] + found if channel in totals else found
    return {
        channel: improved(fisher_vector(totals[channel], own.mixture))
        if channel in totals
        else np.zeros(own.length, np.float32)
        for channel, own in codebook.channels.items()
    }
