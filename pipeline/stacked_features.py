"""What stacked Fisher vectors read of a clip, and the code that all their stages share."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.params import Stacked

if TYPE_CHECKING:
    from han_core.baselines.fisher.stacked import LocalFeatures
    from han_core.baselines.fisher.stacked_params import StackedParams

_ALL = 1 << 16  # more subvolumes than a clip has
_NOT_OF_THE_MODEL = {"splits", "samples", "subvolumes", "clips_per_dimension", "clips_per_gaussian"}
_NOT_OF_THE_MODEL |= {"penalties", "held_out"}


def stacked_params(wanted: Stacked, penalty: float, clips: int) -> "StackedParams":
    """The settings of a model that is fitted to so many training clips, of which one penalty has been chosen.

    The subvolumes of a clip resemble each other. So it is the clips that must be enough for the second layer, whose
    dimensions and Gaussians otherwise stand each for a clip or two: then a test clip is next to none of them, and its
    vector says nothing.
    """
    from han_core.baselines.fisher.stacked_params import StackedParams

    settings = wanted.model_dump(exclude=_NOT_OF_THE_MODEL)
    settings["reduced"] = max(1, min(wanted.reduced, clips // wanted.clips_per_dimension))
    settings["second_gaussians"] = max(1, min(wanted.second_gaussians, clips // wanted.clips_per_gaussian))
    per_clip = min(-(-wanted.subvolumes // clips), _ALL)
    return StackedParams(**settings, per_clip=per_clip, class_penalty=penalty, projection_penalty=penalty)


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
