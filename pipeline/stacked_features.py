"""What stacked Fisher vectors read of a clip, and the code that all their stages share."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.params import Stacked

if TYPE_CHECKING:
    from han_core.baselines.fisher.stacked import LocalFeatures
    from han_core.baselines.fisher.stacked_params import StackedParams

_NOT_OF_THE_MODEL = {"splits", "samples", "penalties", "held_out"}


def stacked_params(wanted: Stacked, penalty: float) -> "StackedParams":
    """The settings of a model, of which one penalty has been chosen."""
    from han_core.baselines.fisher.stacked_params import StackedParams

    settings = wanted.model_dump(exclude=_NOT_OF_THE_MODEL)
    return StackedParams(**settings, class_penalty=penalty, projection_penalty=penalty)


def local_features(path: Path) -> "LocalFeatures":
    """The trajectories of a clip: their descriptors side by side, and where they lie.

    Raises:
        ClipFileError: the file is missing or damaged.
    """
    import numpy as np

    from han_core.baselines.fisher.stacked import LOCAL_CHANNELS, LocalFeatures
    from han_core.baselines.fisher.subvolumes import Positions
    from han_core.baselines.trajectories.trajectoryfile import read_facts, read_trajectories

    facts = read_facts(path)
    found = read_trajectories(path, LOCAL_CHANNELS)
    return LocalFeatures(
        np.hstack([found.channel(channel) for channel in LOCAL_CHANNELS]),
        Positions.of(found.points, found.start, width=facts.width, height=facts.height),
    )
