"""Names of the channels in which trajectories are described."""

NORMALISATIONS = ("st", "ch")
"""Of maps: over space and time, over channels (:mod:`han_core.baselines.tdd.pooling`)."""


def channel_name(source: str, normalisation: str) -> str:
    """Name of the descriptors of a layer, or of a stream's cubes, under a normalisation, e.g. ``conv5_3_st``."""
    return f"{source}_{normalisation}"
