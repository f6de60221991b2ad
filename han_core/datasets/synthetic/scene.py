"""All that is chance in a synthetic clip: background, camera, distractors, the look of the figures, and their places.

A scene is drawn from (seed, group, take) alone, never from the class. So the clips of one take of a group are the same
film in every class, save for the cues, and nothing but the cues can tell the classes apart.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from han_core.datasets.synthetic.figure import Figure, garment_colour

PLACES = {"wave": (0.18, 0.28), "crouch": (0.72, 0.82)}
"""Sub-action -> where across the picture the actor does it, as shares of the width, drawn between the two for each
group. The bystander does the same at the other place, so the place, and it alone, tells who is who."""

_MARGIN = 0.3
"""Share of the frame by which the background is larger than the frame on each side, so that it can be panned."""


@dataclass(frozen=True)
class Distractor:
    """A bar or a blob that moves on its own, away from the figure."""

    kind: str
    centre: tuple[float, float]
    radius: tuple[float, float]
    """Half extent of its path in pixels, x and y."""
    rate: tuple[float, float]
    """Cycles a frame of its path, x and y."""
    phase: tuple[float, float]
    spin: float
    """Turns a frame of a bar."""
    size: float
    colour: tuple[float, float, float]

    def draw(self, image: np.ndarray, frame: int, shift: tuple[float, float]) -> None:
        """Draw it into ``image`` (H,W,3) uint8 as it is at ``frame``."""
        x, y = (
            c + s + r * math.sin(2 * math.pi * (w * frame + p))
            for c, s, r, w, p in zip(self.centre, shift, self.radius, self.rate, self.phase, strict=True)
        )
        if self.kind == "blob":
            cv2.circle(image, (round(x * 16), round(y * 16)), round(self.size * 16), self.colour, -1, cv2.LINE_AA, 4)
            return
        angle = 2 * math.pi * (self.phase[0] + self.spin * frame)
        dx, dy = 1.8 * self.size * math.cos(angle), 1.8 * self.size * math.sin(angle)
        ends = [(round((x + s * dx) * 16), round((y + s * dy) * 16)) for s in (-1, 1)]
        cv2.line(image, *ends, self.colour, max(2, round(0.6 * self.size)), cv2.LINE_AA, 4)


@dataclass(frozen=True)
class Scene:
    """Everything of a clip but its cues."""

    background: np.ndarray
    """(H',W',3) uint8 RGB, larger than the frame."""
    pan: np.ndarray
    """(frames,2) float: where the background's crop starts, x and y."""
    shake: np.ndarray
    """(frames,2) float: how far the camera's jitter, and the hand that holds it, move the whole picture, x and y."""
    distractors: tuple[Distractor, ...]
    figure: Figure
    """The actor."""
    bystander: Figure
    bystander_garment: str
    bystander_tempo: str
    bystander_phase: float
    """Where in its cycle each of its sub-actions starts, 0 to 1."""
    places: dict[str, tuple[float, float]]
    """Sub-action -> the ground, x and y in pixels, on which the actor does it."""
    lead: float
    """Share of the spare frames that lies before the action, 0 to 1."""
    phase: float
    """Where in its cycle each sub-action starts, 0 to 1."""

    def empty_frame(self, frame: int, width: int, height: int) -> np.ndarray:
        """Background and distractors at ``frame``, (height,width,3) uint8 RGB."""
        x, y = self.pan[frame] - self.shake[frame]
        image = cv2.warpAffine(
            self.background,
            np.array([[1.0, 0.0, -x], [0.0, 1.0, -y]]),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for distractor in self.distractors:
            distractor.draw(image, frame, tuple(self.shake[frame]))
        return image


def sway(rng: np.random.Generator, frames: int, fps: float = 30.0) -> np.ndarray:
    """(frames,) float64: the smooth motion of a hand that holds a camera, root mean square 1: waves of 0.5 to 6 Hz."""
    rates, phases = rng.uniform(0.5, 6, 6), rng.uniform(0, 2 * np.pi, 6)
    waves = np.sin(2 * np.pi * np.outer(np.arange(frames) / fps, rates) + phases) / np.sqrt(rates)
    motion = waves.sum(axis=1)
    return motion / max(float(np.sqrt(np.mean(motion**2))), 1e-6)


def draw_scene(
    seed: int, group: int, take: int, *, frames: int, width: int, height: int, fps: float = 30.0, shake: float = 0.0
) -> Scene:
    """The scene of one take of a group; the same numbers give the same scene.

    Args:
        shake: root mean square in pixels, along x and along y, of a hand's motion on top of the camera's pan and
            jitter; scenes that differ in it alone have the same form of motion.
    """
    of_group = np.random.default_rng([seed, group])
    of_take = np.random.default_rng([seed, group, take + 1])
    # The two are drawn alike, so that nothing but the place tells them apart.
    figure, bystander = (_draw_figure(rng, height) for rng in (of_group, of_take))
    places = {
        action: (of_group.uniform(*share) * width, of_group.uniform(0.7, 0.92) * height)
        for action, share in PLACES.items()
    }
    background = _draw_background(of_group, width, height)
    direction = of_group.uniform(0, 2 * math.pi)
    speed = of_group.uniform(0.1, 0.3) * width / 160
    step = speed * np.array([math.cos(direction), math.sin(direction)])
    middle = _MARGIN * np.array([width, height])
    pan = middle + step * (np.arange(frames)[:, None] - frames / 2)
    jitter = of_group.uniform(0.05, 0.2) * width / 160
    # Of a generator of its own, so that a scene without shake is the one that it always was.
    of_hand = np.random.default_rng([seed, group, take + 1, *b"hand"])
    hand = shake * np.stack([sway(of_hand, frames, fps) for _ in "xy"], axis=1)
    return Scene(
        background=background,
        pan=pan,
        shake=of_take.normal(0.0, jitter, (frames, 2)) + hand,
        distractors=tuple(_draw_distractors(of_take, figure.height, tuple(places.values()), width, height)),
        figure=figure,
        bystander=bystander,
        # Each of the four pairs equally often, whatever the number of groups and takes.
        bystander_garment=("green", "magenta")[(group + take) % 2],
        bystander_tempo=("fast", "slow")[(group + take) // 2 % 2],
        bystander_phase=float(of_take.uniform()),
        places=places,
        lead=float(of_take.uniform()),
        phase=float(of_take.uniform()),
    )


def _draw_figure(rng: np.random.Generator, height: int) -> Figure:
    tone = rng.uniform(120, 225)
    return Figure(
        height=rng.uniform(0.47, 0.55) * height,
        girth=rng.uniform(0.9, 1.15),
        arm_length=rng.uniform(0.29, 0.33),
        skin=(tone, 0.8 * tone, 0.65 * tone),
        garment_luma=rng.uniform(124, 135),
    )


def _draw_background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Coloured clutter: smooth noise, then random ellipses, boxes and lines, then grain."""
    full = (round(width * (1 + 2 * _MARGIN)), round(height * (1 + 2 * _MARGIN)))
    image = np.full((full[1], full[0], 3), 0.0, np.float32)
    for cells, strength in ((4, 40.0), (10, 25.0), (30, 15.0)):
        noise = rng.normal(0.0, strength, (cells, cells, 1)) + rng.normal(0.0, 0.4 * strength, (cells, cells, 3))
        image += cv2.resize(noise.astype(np.float32), full, interpolation=cv2.INTER_CUBIC)
    image = np.clip(image + rng.uniform(85, 150), 0, 255).astype(np.uint8)
    scale = height / 120
    for _ in range(45):
        x, y = (int(rng.uniform(0, side)) for side in full)
        colour = _dull_colour(rng)
        kind = rng.integers(3)
        a, b = (max(2, round(v * scale)) for v in rng.uniform(2, 14, 2))
        angle = rng.uniform(0, 360)
        if kind == 0:
            cv2.ellipse(image, (x, y), (a, b), angle, 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = cv2.boxPoints(((x, y), (2 * a, 2 * b), angle)).astype(np.int32)
            cv2.fillConvexPoly(image, corners, colour, cv2.LINE_AA)
        else:
            end = (round(x + 3 * a * math.cos(angle)), round(y + 3 * a * math.sin(angle)))
            cv2.line(image, (x, y), end, colour, max(1, b // 3), cv2.LINE_AA)
    grain = rng.normal(0.0, 6.0, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def _draw_distractors(
    rng: np.random.Generator, tall: float, places: tuple[tuple[float, float], ...], width: int, height: int
) -> list[Distractor]:
    """Two blobs in the garments' colours and two bars, each with a path of its own, away from figures ``tall`` pixels
    high at ``places``."""
    found = []
    # A blob in each garment colour: the colour somewhere in the picture says nothing, it counts on the figure.
    colours = [garment_colour(name, rng.uniform(95, 135)) for name in ("green", "magenta")]
    colours += [_dull_colour(rng) for _ in range(2)]
    for kind, colour in zip(("blob", "blob", "bar", "bar"), colours, strict=True):
        size = rng.uniform(0.03, 0.05) * height
        radius = tuple(rng.uniform(0.02, 0.08, 2) * height)
        for _ in range(200):
            centre = (rng.uniform(0, width), rng.uniform(0, height))
            reach_x = 0.4 * tall + radius[0] + 1.8 * size
            reach_y = 0.5 * tall + radius[1] + 1.8 * size
            if all(abs(centre[0] - x) > reach_x or abs(centre[1] - y + 0.5 * tall) > reach_y for x, y in places):
                break
        found.append(
            Distractor(
                kind=kind,
                centre=centre,
                radius=radius,
                rate=tuple(rng.uniform(0.01, 0.06, 2)),
                phase=tuple(rng.uniform(0, 1, 2)),
                spin=rng.uniform(-0.03, 0.03),
                size=size,
                colour=colour,
            )
        )
    return found


def _dull_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour of any brightness, less vivid than the garments."""
    return tuple(float(v) for v in np.clip(rng.uniform(50, 200) + rng.uniform(-45, 45, 3), 0, 255))
