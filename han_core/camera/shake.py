"""A clip filmed again by a hand that is not steady: its frames moved, and its flow as it would then be.

What a net learns from flow of cameras that stood still it does not know again when they shake: the shifts are the least
of it, the grain that they leave in what stands still is more. Views of the clips that are made so tell it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from han_core.camera.steady_field import steady_field
from han_core.camera.storedflow import field_of_levels
from han_core.flow.levels import FlowFormat, quantize

_RATES = (0.5, 6.0)  # waves a second of a hand
_PER_SECOND = 30  # pictures; what is filmed at another rate shakes at another rate
_WAVES = 6
_TURN, _ZOOM = 0.2, 0.005  # degrees, and share: root mean square for each per cent of the shift
_SIZES = ("x", "y", "turn", "zoom")


@dataclass(frozen=True)
class Hand:
    """A hand that holds a camera: where the picture is at each frame. The same values move in the same way, frames
    and flow alike."""

    strength: float
    """Root mean square of the shift along x and along y, in per cent of the picture's shorter side. The picture turns
    by 0.2 degrees (root mean square) and grows by 0.5 per cent for each of them."""
    name: str
    """What it is that is filmed; another name is moved in another way."""

    @cached_property
    def _waves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        random = np.random.default_rng([*b"hand", *self.name.encode()])
        rates = random.uniform(*_RATES, (len(_SIZES), _WAVES))
        phases = random.uniform(0, 2 * np.pi, rates.shape)
        sizes = 1 / np.sqrt(rates)  # slow waves are large ones
        return rates, phases, sizes / np.sqrt((sizes**2).sum(axis=1, keepdims=True) / 2)

    def motion(self, number: int, width: int, height: int) -> np.ndarray:
        """(3, 3) float64: maps positions (x, y, 1) of frame ``number`` to where they are in the shaken picture."""
        rates, phases, sizes = self._waves
        at = (sizes * np.sin(2 * np.pi * rates * (number / _PER_SECOND) + phases)).sum(axis=1)
        x, y, turn, zoom = self.strength * at
        centre = ((width - 1) / 2, (height - 1) / 2)
        motion = np.eye(3)
        motion[:2] = cv2.getRotationMatrix2D(centre, _TURN * turn, 1 + _ZOOM * zoom)
        motion[:2, 2] += min(width, height) / 100 * np.array([x, y])
        return motion


def shake_frames(pixels: np.ndarray, numbers: Sequence[int] | np.ndarray, hand: Hand) -> None:
    """Film frames again, in place; what comes into the picture at its edge is mirrored.

    Args:
        pixels: (m, H, W, 3) uint8.
        numbers: (m,) which frame of the clip each of them is.
    """
    height, width = pixels.shape[1:3]
    for picture, number in zip(pixels, numbers, strict=True):
        motion = hand.motion(int(number), width, height)[:2]
        picture[...] = cv2.warpAffine(
            picture, motion, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )


def shake_levels(
    levels: np.ndarray,
    numbers: Sequence[int] | np.ndarray,
    hand: Hand,
    form: FlowFormat,
    camera: str | None = None,
) -> None:
    """Film stored flow again, in place, without solving for it again.

    Args:
        levels: (m, 2, H, W) uint8, x first.
        numbers: (m,) which field of the clip each of them is: field n leads from frame n to frame n + 1.
        form: how they are stored.
        camera: what is then taken out again, as of every clip (:func:`steady_field`); None is nothing.

    Raises:
        ValueError: there is no such ``camera``.
    """
    height, width = levels.shape[2:]
    for stored, number in zip(levels, numbers, strict=True):
        before, after = (hand.motion(int(number) + step, width, height) for step in (0, 1))
        flow = shaken_field(field_of_levels(stored, form.bound, form.rounding), before, after)
        stored[...] = quantize(flow, form.bound, form.rounding)
        if camera is not None:
            found = steady_field(field_of_levels(stored, form.bound, form.rounding), camera)
            stored[...] = quantize(found, form.bound, form.rounding)


def shaken_field(flow: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Flow f between two frames that the camera's motions A and B moved: g(z) = B (y + f(y)) - z, y = A^-1 z.

    Args:
        flow: (2, H, W) float32 pixels.
        before, after: (3, 3) A and B, affine.

    Returns:
        (2, H, W) float32 pixels. At the edge the nearest flow is taken.
    """
    height, width = flow.shape[1:]
    moved = [
        cv2.warpAffine(part, before[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for part in flow
    ]
    # B (A^-1 z) - z is small, and so exact in float32 for pictures of any size.
    rest = after @ np.linalg.inv(before) - np.eye(3)
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    return np.stack(
        [
            np.float32(r[0]) * x
            + np.float32(r[1]) * y
            + np.float32(r[2])
            + np.float32(b[0]) * moved[0]
            + np.float32(b[1]) * moved[1]
            for r, b in zip(rest[:2], after[:2], strict=True)
        ]
    )
