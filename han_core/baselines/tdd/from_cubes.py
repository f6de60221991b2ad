"""The cheap variant: cubes that are on disk already, pooled along tracks. Not the method of the paper.

A cube has T equally spaced frames of a clip, squeezed to 224x224, of one layer. A track crosses two or three of 25 such
frames in a clip of 180; one that crosses none is left out.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from han_core.baselines.tdd.channels import channel_name
from han_core.baselines.tdd.pooling import PooledMaps
from han_core.baselines.tdd.tracks import Tracks, read_tracks
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.trailer import REMAKE, ClipFileError, read_trailer
from han_core.cubes.cubefile import cube_shape, read_cube


def crossing_tracks(trajectories: str | Path, cubes: Mapping[str, Path]) -> Tracks:
    """The tracks of a clip that cross a frame of its cubes.

    Args:
        trajectories: the clip's trajectory file.
        cubes: stream -> the clip's cube file.

    Raises:
        ClipFileError: a file is missing or damaged, or the streams' cubes are of different frames.
        TracksError: a track runs beyond the clip.
    """
    tracks = read_tracks(trajectories)
    frames, *others = (read_frame_numbers(path) for path in cubes.values())
    if not all(np.array_equal(frames, other) for other in others):
        raise ClipFileError(f"{', '.join(map(str, cubes.values()))}: are of different frames. {REMAKE}")
    if len(frames) > 1:  # then the last frame of the clip is among them
        tracks.check(int(frames[-1]) + 1)
    return tracks.take(np.flatnonzero(crossed_frames(frames, tracks)))


def cube_descriptors(cubes: Mapping[str, Path], tracks: Tracks) -> dict[str, np.ndarray]:
    """Channel (stream and normalisation, e.g. ``spatial_st``) -> (n, C) float32 descriptors out of a clip's cubes.

    Args:
        cubes: stream -> the clip's cube file.
        tracks: from :func:`crossing_tracks`.

    Raises:
        ClipFileError: a cube file is missing or damaged.
    """
    return {
        channel_name(stream, normalisation): values
        for stream, path in cubes.items()
        for normalisation, values in pool_cube(read_cube(path), read_frame_numbers(path), tracks).items()
    }


def read_frame_numbers(path: str | Path) -> np.ndarray:
    """The frame of the clip (T,) int32, ascending, that each frame of its cube is.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no cube.
    """
    trailer = read_trailer(path)
    count = cube_shape(path, trailer)[0]
    (frames,) = read_parts(path, trailer, ("frames",))
    if frames.shape != (count,) or frames.dtype != np.int32 or (frames < 0).any() or (np.diff(frames) < 0).any():
        raise ClipFileError(f"{path}: does not say which frames its cube is of. {REMAKE}")
    return frames


def crossed_frames(frames: np.ndarray, tracks: Tracks) -> np.ndarray:
    """(n,) how many distinct ones of a cube's frames each track crosses."""
    distinct = np.unique(frames)
    ends = np.searchsorted(distinct, tracks.start + tracks.length)
    return ends - np.searchsorted(distinct, tracks.start)


def pool_cube(cube: np.ndarray, frames: np.ndarray, tracks: Tracks) -> dict[str, np.ndarray]:
    """{normalisation: (n, C) float32} descriptors of tracks, all of which cross a frame of the cube.

    The mean over the frames that a track crosses stands for its mean over all L of its own: sums are scaled to L
    frames, so tracks that cross more of them do not count more. A frame that is in the cube twice counts once.

    Args:
        cube: (T, C, K, K). frames: (T,) ascending.

    Raises:
        ValueError: a track crosses no frame of the cube.
    """
    crossed = crossed_frames(frames, tracks)
    if not crossed.all():
        raise ValueError("a track crosses no frame of the cube")
    channels, rows, columns = cube.shape[1:]
    pooled = PooledMaps(tracks, rows, columns, channels)
    for frame, first in zip(*np.unique(frames, return_index=True), strict=True):
        pooled.add(torch.from_numpy(cube[first]).permute(1, 2, 0), [int(frame)])
    scales = np.sqrt(tracks.length / crossed, dtype=np.float32)[:, None]
    return {name: roots.numpy() * scales for name, roots in pooled.descriptors().items()}
