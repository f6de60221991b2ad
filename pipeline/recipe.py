"""What a trained model's file says about its input: the params that made it, and what its cube files know."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from han_core.clipfile import ClipFile
from han_core.datasets.clips import Clip
from han_core.recipe import FeatureRecipe
from pipeline.params import Params
from pipeline.paths import Paths, clip_file

_MEASURED = 200
"""Clips whose length is looked at for the median; of more, so many are taken evenly."""


def feature_recipe(params: Params, streams: Sequence[str], split: int, clips: Sequence[Clip]) -> FeatureRecipe:
    """The recipe of the features of some training clips.

    Args:
        streams: those that the model reads.
        split: whose nets made the cubes.
        clips: the training clips, which have cubes in all these streams.

    Raises:
        ClipFileError: a cube file is damaged.
    """
    paths = Paths.of(params)
    made = {stream: _attributes(paths.cubes(stream, split), clips[0]) for stream in streams}
    first = made[streams[0]]
    flow = params.flow
    return FeatureRecipe(
        frames=params.cubes.frames,
        layer=first.get("layer", params.cubes.layer),
        fc=first.get("fc", params.cubes.fc),
        batch=params.cubes.batch,
        precision=first.get("precision", "float32"),  # `auto` is what the cubes' machine made of it
        stack=params.stack,
        short_side=params.decode.short_side,
        frame_quality=params.decode.quality,
        flow=flow.model_dump(include={"bound", "rounding", "codec", "quality", "size"}),
        tvl1=flow.tvl1.model_dump(),
        backend=flow.backend,
        clip_frames=_median_length(paths.cubes(streams[0], split), clips),
        nets={stream: found["net"] for stream, found in made.items() if "net" in found},
        inputs={stream: found["input"] for stream, found in made.items() if "input" in found},
    )


def _attributes(folder: Path, clip: Clip) -> dict:
    with ClipFile(clip_file(folder, clip.class_name, clip.name)) as file:
        return file.attributes


def _median_length(folder: Path, clips: Sequence[Clip]) -> int:
    """In frames. The last of a clip's T frames is its last one."""
    lengths = []
    for place in np.linspace(0, len(clips) - 1, min(_MEASURED, len(clips))).round().astype(int):
        with ClipFile(clip_file(folder, clips[place].class_name, clips[place].name)) as file:
            lengths.append(int(file.array("frames")[-1]) + 1)
    return int(np.median(lengths))
