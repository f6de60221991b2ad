"""The trajectories of a clip as a file: seven small arrays and the histograms, all compressed.

================  ======================  =====================================================================
``start``         (n,) int32              frame of the first point
``scale``         (n,) uint8              level of the pyramid
``origin``        (n, 2) int32            first point, x and y, in 1/64 pixel of the flow's size
``steps``         (n, L, 2) int16         from each point to the next, in 1/64 pixel
``warped``        (n, L, 2) int16         the same without the camera's motion
``hog`` ..        (n, 96 or 108) uint8    ``hog``, ``hof``, ``mbhx``, ``mbhy``: 255 times the value
================  ======================  =====================================================================

Attributes: ``count`` (trajectories in the file), ``frames`` (of the clip), ``width``, ``height`` (of the flow), what
was counted (``finished``, ``kept``, ``static``, ``erratic``, ``camera_like``; see :class:`Counts`), the settings
(:class:`TrajectoryParams`), and those given.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from han_core.baselines.trajectories.params import LARGEST, MOST_SCALES, TrajectoryParams
from han_core.baselines.trajectories.trajectories import (
    CHANNELS,
    DIMENSIONS,
    HISTOGRAMS,
    RESOLUTION,
    Counts,
    Trajectories,
)
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, SPARSE, ClipFileError, Codec, Trailer, read_trailer
from han_core.clipfile.writer import ClipFileWriter

KIND = "trajectories"

_LONGEST = 1 << 30  # frames, or trajectories
_TYPES = {"start": "<i4", "scale": "|u1", "origin": "<i4", "steps": "<i2", "warped": "<i2"}
_TYPES |= dict.fromkeys(HISTOGRAMS, "|u1")
_CODECS: dict[str, Codec] = {name: "zstd" if kind == "|u1" else "shuffle-zstd" for name, kind in _TYPES.items()}
_COUNTED = {"finished": "finished", "kept": "kept", "static": "static", "erratic": "erratic", "camera_like": "camera"}
"""Attribute -> field of :class:`Counts`; ``camera`` is a setting."""


@dataclass(frozen=True)
class Facts:
    """What a trajectory file says of itself."""

    count: int
    """Trajectories in the file."""
    frames: int
    """Of the clip."""
    width: int
    height: int
    """Pixels of the flow's size, in which points are."""
    counts: Counts


def write_trajectories(
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    trajectories: Trajectories,
    counts: Counts,
    params: TrajectoryParams,
    size: tuple[int, int],
    length: int,
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write a clip file of kind trajectories.

    Args:
        path: the clip file to write.
        clip, fingerprint: who it is.
        trajectories: with all arrays, as :func:`extract` returns them; none is fine.
        counts: of all tracks, whether in the file or not.
        params: how they were made.
        size: width and height of the flow, pixels.
        length: frames of the clip.
        attributes: further ones.
    """
    whole = np.rint(trajectories.points * RESOLUTION).astype(np.int32)
    arrays = {
        "start": trajectories.start,
        "scale": trajectories.scale,
        "origin": whole[:, 0],
        "steps": _short(np.diff(whole, axis=1)),
        "warped": _short(np.rint(trajectories.warped * RESOLUTION)),
        **{name: getattr(trajectories, name) for name in HISTOGRAMS},
    }
    facts = {"count": len(trajectories), "frames": length, "width": size[0], "height": size[1]}
    facts |= {name: getattr(counts, field) for name, field in _COUNTED.items()}
    facts |= {**vars(params), **(attributes or {})}
    with ClipFileWriter(path, kind=KIND, clip=clip, fingerprint=fingerprint, attributes=facts) as file:
        for name, values in arrays.items():
            file.array(name, np.ascontiguousarray(values, _TYPES[name]), codec=_CODECS[name])


def read_trajectories(
    path: str | Path,
    channels: Collection[str] | None = None,
    *,
    points: bool = True,
    rows: np.ndarray | None = None,
) -> Trajectories:
    """The trajectories of a clip; the same numbers that :func:`extract` returned.

    Args:
        path: a trajectory file.
        channels: what is wanted of :data:`CHANNELS`; None is all. What is not read is None in the result.
        points: whether the points are wanted.
        rows: (m,) numbers of the trajectories wanted, from 0, in the order wanted; None is all.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no trajectories.
        ValueError: there is no such channel.
        IndexError: there is no such trajectory.
    """
    wanted = CHANNELS if channels is None else tuple(channels)
    if unknown := sorted(set(wanted) - set(CHANNELS)):
        raise ValueError(f"channels: {unknown[0]!r} is not one of {', '.join(CHANNELS)}")
    trailer = read_trailer(path)
    facts, (_, length) = read_facts(path), _shape(path, trailer)
    names = [
        "start",
        "scale",
        *(["origin", "steps"] if points else []),
        *(["warped"] if "trajectory" in wanted else []),
    ]
    names += [name for name in HISTOGRAMS if name in wanted]
    stored = dict(zip(names, read_parts(path, trailer, tuple(names)), strict=True))
    if wrong := _impossible(stored, facts, length):
        raise _damaged(path, trailer, wrong)
    if rows is not None:
        stored = {name: values[rows] for name, values in stored.items()}
    found = {name: stored.get(name) for name in ("start", "scale", *HISTOGRAMS)}
    found |= {"points": _pixels(_whole_points(stored)) if points else None}
    found |= {"warped": _pixels(stored["warped"]) if "warped" in stored else None}
    return Trajectories(**found)


def count_trajectories(path: str | Path) -> int:
    """How many trajectories a file holds: one small read.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no trajectories.
    """
    return _shape(path, read_trailer(path))[0]


def read_facts(path: str | Path) -> Facts:
    """What a trajectory file says of its clip and of itself.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no trajectories.
    """
    with ClipFile(path) as file:
        if file.kind != KIND:
            raise ClipFileError(f"{path}: clip {file.clip} is a file of kind {file.kind} and holds no trajectories")
        said = file.attributes
    limits = {"count": _LONGEST, "frames": _LONGEST, "width": LARGEST, "height": LARGEST}
    limits |= dict.fromkeys(_COUNTED, 1 << 62)
    for name, most in limits.items():
        value = said.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ClipFileError(f"{path}: its attribute {name} is not one of trajectories. {REMAKE}")
    trailer = read_trailer(path)
    if (held := _shape(path, trailer)[0]) != said["count"]:
        raise _damaged(path, trailer, f"it says {said['count']} trajectories and holds {held}")
    counts = Counts(**{field: said[name] for name, field in _COUNTED.items()})
    return Facts(said["count"], said["frames"], said["width"], said["height"], counts)


def _shape(path: str | Path, trailer: Trailer) -> tuple[int, int]:
    """Number and length of the trajectories, once all arrays fit together."""
    arrays = trailer.arrays
    if trailer.kind != KIND or not _TYPES.keys() <= arrays.keys():
        raise ClipFileError(f"{path}: clip {trailer.clip} is a file of kind {trailer.kind} and holds no trajectories")
    count = arrays["start"].shape[0]
    length = arrays["steps"].shape[1] if len(arrays["steps"].shape) == 3 else 0
    shapes = {"start": (), "scale": (), "origin": (2,), "steps": (length, 2), "warped": (length, 2)}
    shapes |= {name: (DIMENSIONS[name],) for name in HISTOGRAMS}
    for name, shape in shapes.items():
        stored = arrays[name]
        if stored.dtype != _TYPES[name] or stored.shape != (count, *shape) or stored.codec == SPARSE or not length:
            raise _damaged(path, trailer, f"{name} does not hold {count} trajectories")
    return count, length


def _impossible(stored: Mapping[str, np.ndarray], facts: Facts, length: int) -> str:
    """What is wrong with the values of the arrays that were read; "" if nothing is."""
    if not len(stored["start"]):
        return ""
    if int(stored["start"].min()) < 0 or int(stored["start"].max()) + length >= facts.frames:
        return f"a trajectory lies outside its {facts.frames} frames"
    if int(stored["scale"].max()) >= MOST_SCALES:
        return f"a trajectory is of scale {int(stored['scale'].max())}"
    if "origin" in stored:
        points = _whole_points(stored)
        most = np.array([facts.width, facts.height]) * RESOLUTION
        if int(points.min()) < 0 or (points > most).any():
            return f"a trajectory leaves the frame of {facts.width}x{facts.height} pixels"
    return ""


def _whole_points(stored: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, L + 1, 2) int64 in units of the resolution."""
    both = np.concatenate([stored["origin"][:, None], stored["steps"]], axis=1, dtype=np.int64)
    return np.cumsum(both, axis=1)


def _pixels(whole: np.ndarray) -> np.ndarray:
    return whole.astype(np.float32) * np.float32(1 / RESOLUTION)


def _short(whole: np.ndarray) -> np.ndarray:
    """As int16. Trajectories that stray farther than it can hold are erratic, and none.

    Raises:
        ValueError: they are kept all the same.
    """
    if whole.size and np.abs(whole).max() > np.iinfo(np.int16).max:
        raise ValueError(f"a displacement is longer than {np.iinfo(np.int16).max // RESOLUTION} pixels")
    return whole.astype(np.int16)


def _damaged(path: str | Path, trailer: Trailer, wrong: str) -> ClipFileError:
    return ClipFileError(f"{path}: clip {trailer.clip}: {wrong}. {REMAKE}")
