"""From the frames and flow of a clip to its trajectory file."""

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from han_core.baselines.trajectories.extract import Extractor
from han_core.baselines.trajectories.params import LARGEST, TrajectoryParams
from han_core.baselines.trajectories.storedflow import pixels_of_levels
from han_core.baselines.trajectories.trajectoryfile import write_trajectories
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, ClipFileError
from han_core.errors import ClipError
from han_core.flow.flowfile import grey_frame


def make_trajectories(
    frames_path: str | Path,
    flow_path: str | Path,
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    params: TrajectoryParams,
    seed: int,
    attributes: Mapping[str, str | int | float] | None = None,
) -> int:
    """Extract the trajectories of a clip from its frames file and its flow file into a trajectory file.

    Frames are resized to the flow's size, in whose pixels everything is then. One frame and its flow are in memory at a
    time, beside what :class:`Extractor` holds.

    Args:
        frames_path, flow_path: the clip's, N frames and N - 1 fields.
        path: the clip file to write.
        clip, fingerprint: who it is; which part of the trajectories is kept depends on the clip's name.
        params: how trajectories are made.
        seed: of that choice; where there is none (``params.most`` is 0) the file does not depend on it.
        attributes: to be stored in the file.

    Returns:
        The number of trajectories in the file; 0 is fine.

    Raises:
        ClipError: frames and flow do not fit together, or are too large.
        ClipFileError: one of the files is damaged, or not what it should be.
    """
    with ClipFile(frames_path) as frames, ClipFile(flow_path) as flow:
        count, fields = frames.image_count("frames"), flow.image_count("x")
        if flow.image_count("y") != fields:
            raise ClipFileError(
                f"{flow_path}: has {fields} images of flow along x, {flow.image_count('y')} along y. {REMAKE}"
            )
        if count != fields + 1:
            raise ClipError(f"the clip has {count} frames and {fields} fields of flow, which must be one fewer")
        width, height, bound, rounding = _form(flow)
        if max(width, height) > LARGEST:
            raise ClipError(f"its flow has {width}x{height} pixels; a side has {LARGEST} at most")
        table = pixels_of_levels(bound, rounding)
        extractor = Extractor(height, width, params, name=clip, seed=seed, count=count)
        for i in range(count):
            grey = grey_frame(frames.image_bytes("frames", i), (width, height))
            extractor.add(grey, _field(flow, i - 1, (height, width), table) if i else None)
    found = extractor.trajectories()
    write_trajectories(
        path,
        clip=clip,
        fingerprint=fingerprint,
        trajectories=found,
        counts=extractor.counts,
        params=params,
        size=(width, height),
        length=count,
        attributes={**({"seed": seed} if params.most else {}), **(attributes or {})},
    )
    return len(found)


def _form(flow: ClipFile) -> tuple[int, int, float, str]:
    """Width, height, bound and rounding of a flow file."""
    said = flow.attributes
    sides, bound, rounding = [said.get("width"), said.get("height")], said.get("bound"), said.get("rounding")
    fine = all(isinstance(side, int) and 0 < side < 1 << 20 for side in sides)
    fine = fine and isinstance(bound, float) and math.isfinite(bound) and 0 < bound < 1e6
    if not fine or rounding not in ("nearest", "floor"):
        raise ClipFileError(f"{flow.path}: does not say how its flow is stored. {REMAKE}")
    return *sides, bound, rounding


def _field(flow: ClipFile, number: int, size: tuple[int, int], table: np.ndarray) -> np.ndarray:
    """Field of this number, (2, H, W) float32 pixels; ``table`` is that of the levels."""
    field = np.empty((2, *size), np.float32)
    for component, name in zip(field, ("x", "y"), strict=True):
        levels = flow.image(name, number)
        if levels.shape != size:
            raise ClipFileError(f"{flow.path}: flow {number} is not of {size[1]}x{size[0]} pixels. {REMAKE}")
        cv2.LUT(levels, table, component)
    return field
