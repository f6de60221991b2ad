"""The acting figure of the synthetic dataset: a body of thick strokes that waves and crouches.

Everything here is a pure function of the cues and of a :class:`Figure`; chance lives in ``synthetic_scene.py``.
Lengths are shares of the figure's height, y points down, and the origin is the ground between the feet.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

MAGENTA_AXIS = (90.0, -67.0, 110.0)
"""RGB offset of the magenta garment; green is its negative. Its luma, .299 R + .587 G + .114 B, is 0.1, so the two
garments have the same grey value and optical flow, which is computed on grey images, cannot tell them apart."""

_SHADES = {"leg": -8.0, "torso": 6.0, "arm": -14.0}
"""Added to the garment's grey value, so that a limb in front of the body can be seen, and its motion computed."""

_SHIFT = 4
"""Fractional bits of the coordinates given to OpenCV, so that slow motion is smooth."""


@dataclass(frozen=True)
class Pose:
    """One posture: all that a single frame shows of the action."""

    arms: float
    """Angle of both arms from straight down, in degrees."""
    drop: float
    """How far the hips are lowered, as a share of the figure's height."""


@dataclass(frozen=True)
class Figure:
    """What does not change within a clip: size, proportions and colours (RGB, 0 to 255)."""

    height: float
    """Pixels from the feet to the top of the head, standing."""
    girth: float
    """1 is an ordinary body, larger is wider."""
    arm_length: float
    skin: tuple[float, float, float]
    garment_luma: float


REST = Pose(arms=30.0, drop=0.0)
_WAVE = Pose(arms=138.0, drop=0.0)
_WAVE_SWING = 32.0
_CROUCH = Pose(arms=30.0, drop=0.15)
_CROUCH_SWING = 0.10


def action_pose(action: str, phase: float) -> Pose:
    """The posture at ``phase`` (in cycles) of the sub-action ``wave`` (arms) or ``crouch`` (legs)."""
    swing = math.sin(2 * math.pi * phase)
    if action == "wave":
        return Pose(_WAVE.arms + _WAVE_SWING * swing, _WAVE.drop)
    if action == "crouch":
        return Pose(_CROUCH.arms, _CROUCH.drop + _CROUCH_SWING * swing)
    raise ValueError(f"unknown sub-action {action!r}: known are wave and crouch")


def between(first: Pose, second: Pose, share: float) -> Pose:
    """The posture ``share`` of the way from one to the other."""
    return Pose(first.arms + share * (second.arms - first.arms), first.drop + share * (second.drop - first.drop))


def garment_colour(name: str, luma: float) -> tuple[float, float, float]:
    """RGB of the ``green`` or ``magenta`` garment at a grey value of ``luma``."""
    sign = {"green": -1.0, "magenta": 1.0}[name]
    return tuple(min(max(luma + sign * offset, 0.0), 255.0) for offset in MAGENTA_AXIS)


def draw_figure(
    image: np.ndarray, figure: Figure, pose: Pose, garment: str, place: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw the figure into ``image`` (H,W,3) uint8 RGB, the ground between its feet at the pixel ``place`` (x, y).

    Returns:
        The box x, y, width, height in pixels that holds every pixel of the figure inside the image.
    """
    silhouette = np.zeros(image.shape[:2], np.uint8)
    for start, end, thickness, part in _strokes(figure, pose):
        ink = figure.skin if part == "head" else garment_colour(garment, figure.garment_luma + _SHADES[part])
        points = [
            tuple(
                round((origin + figure.height * value) * (1 << _SHIFT))
                for origin, value in zip(place, point, strict=True)
            )
            for point in (start, end)
        ]
        pixels = max(2, round(thickness * figure.height))
        cv2.line(image, *points, ink, pixels, cv2.LINE_AA, _SHIFT)
        cv2.line(silhouette, *points, 255, pixels, cv2.LINE_AA, _SHIFT)
    return tuple(cv2.boundingRect(silhouette))


def _strokes(figure: Figure, pose: Pose) -> list[tuple]:
    """(start, end, thickness, part) of each limb, back to front."""
    hip_y = -0.47 + pose.drop
    neck_y = hip_y - 0.32
    wide = figure.girth
    strokes = []
    for side in (-1.0, 1.0):
        hip = (side * 0.06 * wide, hip_y)
        foot = (side * 0.09 * wide, -0.03)
        knee = _knee(hip, foot, 0.235, side)
        strokes += [(knee, foot, 0.12 * wide, "leg"), (hip, knee, 0.15 * wide, "leg")]
    strokes.append(((0.0, hip_y - 0.03), (0.0, neck_y + 0.06), 0.27 * wide, "torso"))
    angle = math.radians(pose.arms)
    for side in (-1.0, 1.0):
        shoulder = (side * 0.12 * wide, neck_y + 0.02)
        hand = (
            shoulder[0] + side * figure.arm_length * math.sin(angle),
            shoulder[1] + figure.arm_length * math.cos(angle),
        )
        strokes.append((shoulder, hand, 0.12 * wide, "arm"))
    strokes.append(((0.0, neck_y - 0.10), (0.0, neck_y - 0.12), 0.17, "head"))
    return strokes


def _knee(hip: tuple, foot: tuple, segment: float, side: float) -> tuple[float, float]:
    """Where two segments of equal length meet, bent outwards."""
    half = math.dist(hip, foot) / 2
    bend = math.sqrt(max(segment**2 - half**2, 0.0))
    along = ((foot[0] - hip[0]) / (2 * half), (foot[1] - hip[1]) / (2 * half))
    middle = ((hip[0] + foot[0]) / 2, (hip[1] + foot[1]) / 2)
    return middle[0] + side * bend * abs(along[1]), middle[1] - bend * abs(along[0])
