"""From the frames and flow of a clip to its trajectory file."""

from collections.abc import Mapping
from pathlib import Path

from han_core.baselines.trajectories.extract import Extractor
from han_core.baselines.trajectories.params import LARGEST, TrajectoryParams
from han_core.baselines.trajectories.trajectoryfile import write_trajectories
from han_core.camera.storedflow import StoredFlow
from han_core.clipfile.reader import ClipFile
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
        count, stored = frames.image_count("frames"), StoredFlow(flow)
        if count != stored.count + 1:
            raise ClipError(f"the clip has {count} frames and {stored.count} fields of flow, which must be one fewer")
        width, height = stored.width, stored.height
        if max(width, height) > LARGEST:
            raise ClipError(f"its flow has {width}x{height} pixels; a side has {LARGEST} at most")
        extractor = Extractor(height, width, params, name=clip, seed=seed, count=count)
        for i in range(count):
            grey = grey_frame(frames.image_bytes("frames", i), (width, height))
            extractor.add(grey, stored.field(i - 1) if i else None)
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
