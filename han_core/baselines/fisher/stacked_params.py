"""Settings of stacked Fisher vectors."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Reduction = Literal["max_margin", "pca"]


@dataclass(frozen=True)
class StackedParams:
    """Stacked Fisher vectors (Peng, Zou, Qiao and Peng 2014).

    From the paper: subvolumes of a clip encoded as Fisher vectors, compressed, and encoded again. The sizes and steps
    of the subvolumes and the width of the compressed vectors could not be verified: what stands here for them is a
    choice of this project.

    Raises:
        ValueError: settings that cannot be used, or not together.
    """

    cells: int = 4
    """Blocks across the width of a frame, and as many down its height; a subvolume's step is one block. (A choice.)"""
    span: int = 2
    """Blocks across and down a subvolume: with 4 cells half the width and height, at 9 places. (A choice.)"""
    frames: tuple[int, ...] = (30, 60)
    """Lengths of subvolumes, even; each length moves by half of itself. (A choice.)"""
    least: int = 30
    """Trajectories in a subvolume; the whole clip is always one, however few it has. (A choice.)"""
    local_dimensions: int = 200
    """Of local features (HOG, HOF and MBH side by side) after whitening."""
    gaussians: int = 256
    """Of the first mixture."""
    reduced: int = 200
    """Dimensions of a subvolume's compressed vector. (A choice.)"""
    second_gaussians: int = 256
    """Of the second mixture."""
    floor: float = 1e-4
    """Smallest variance, in parts of the largest, that whitening and second mixture divide by: at 1 all directions of a
    compressed vector count as they vary, at 0.0001 nearly all count alike. (A choice.)"""
    reduction: Reduction = "max_margin"
    """How subvolumes' vectors are compressed: by a projection learnt with the labels, or by principal components."""
    class_penalty: float = 1e-4
    """lambda, on the class vectors of the max-margin projection."""
    projection_penalty: float = 1e-4
    """mu, on the max-margin projection itself."""
    per_clip: int = 4
    """Subvolumes of a training clip, at most, to which projection and second mixture are fitted. (A choice.)"""
    epochs: int = 5
    """Of the max-margin projection."""
    batch: int = 256
    """Subvolumes of a step."""
    rate: float = 1.0
    """Factor of the max-margin projection's step sizes. (A choice.)"""
    iterations: int = 100
    """Most of each mixture."""

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in _COUNTS}
        problems = [f"{name} is {value!r}, not 1 to {_COUNTS[name]}" for name, value in counts.items()
                    if not _is_count(value) or not 1 <= value <= _COUNTS[name]]  # fmt: skip
        lengths = self.frames
        if not isinstance(lengths, tuple) or not 1 <= len(lengths) <= 16 or not all(map(_is_length, lengths)):
            problems.append("frames are not even numbers from 2 to 10,000")
        if not problems and self.span > self.cells:
            problems.append(f"a span of {self.span} in {self.cells} cells")
        if self.reduction not in ("max_margin", "pca"):
            problems.append(f"reduction is {self.reduction!r}, not max_margin or pca")
        for name in ("class_penalty", "projection_penalty", "rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                problems.append(f"{name} is {value!r}, not a number from 0")
        if isinstance(self.floor, bool) or not isinstance(self.floor, (int, float)) or not 0 < self.floor <= 1:
            problems.append(f"floor is {self.floor!r}, not a number above 0 and up to 1")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def block_frames(self) -> int:
        """Frames of a block: all subvolumes begin and end between two."""
        return math.gcd(*(length // 2 for length in self.frames))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"frames": list(self.frames)}

    @classmethod
    def from_dict(cls, values: object) -> "StackedParams":
        """The reverse of :meth:`to_dict`.

        Raises:
            ValueError: they are not settings.
        """
        if not isinstance(values, dict) or values.keys() != asdict(cls()).keys():
            raise ValueError("not the settings of stacked Fisher vectors")
        frames = values["frames"]
        return cls(**values | {"frames": tuple(frames) if isinstance(frames, list) else frames})


_COUNTS = {
    "cells": 64, "span": 64, "least": 1 << 30, "local_dimensions": 1 << 16, "gaussians": 1 << 16, "reduced": 1 << 16,
    "second_gaussians": 1 << 16, "per_clip": 1 << 16, "epochs": 1 << 16, "batch": 1 << 16, "iterations": 1 << 16,
}  # fmt: skip
"""Settings that are counts, and the largest of each that makes sense."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_length(value: object) -> bool:
    return _is_count(value) and 2 <= value <= 10_000 and value % 2 == 0
