"""Random crops and flips of frames and flow stacks while a net is fine-tuned.

Corner and centre crops with scale jitter, as "Towards good practices for very deep two-stream ConvNets" (Wang et al.
2015) describes them. What is drawn (:meth:`Augmentation.draw`) is apart from how it is applied
(:func:`han_core.nets.crops.apply_views`): draws are tiny, seeded for each sample and made on the CPU, pixels are moved
on the device.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from han_core.nets.crops import View, crop_positions


class Views(Protocol):
    """Which part of an image a net is trained on."""

    def draw(self, random: np.random.Generator, height: int, width: int) -> View:
        """Draw a view of an image of this size, with the same number of draws whatever the settings."""

    def centre(self, height: int, width: int) -> View:
        """The view by which validation clips are looked at."""


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn.

    ``scales`` are crop sides as shares of the image's shorter side; width and height each take one of them, at most
    ``max_distort`` places apart in the list (None: independently of each other). The crop lies in one of the four
    corners or in the centre. Without ``corner_crops`` the whole image is taken.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    max_distort: int | None = None
    corner_crops: bool = True
    flip: bool = True

    def __post_init__(self) -> None:
        if self.corner_crops and not self.scales:
            raise ValueError("scales: name at least one scale, e.g. [1], or set corner_crops to false")

    @cached_property
    def crop_scales(self) -> list[tuple[float, float]]:
        """(height, width) of the crops that are drawn, all equally often, as shares of the shorter side."""
        numbered = list(enumerate(self.scales))
        return [
            (high, wide)
            for i, high in numbered
            for j, wide in numbered
            if self.max_distort is None or abs(i - j) <= self.max_distort
        ]

    def draw(self, random: np.random.Generator, height: int, width: int) -> View:
        """Draw a view of an image of this size; always the same number of draws, so settings do not shift others."""
        scale, place, mirror = random.random(3)
        flip = bool(self.flip and mirror < 0.5)
        if not self.corner_crops:
            return View(0, 0, height, width, flip)
        scales, shorter = self.crop_scales, min(height, width)
        crop_height, crop_width = (max(1, round(shorter * share)) for share in scales[int(scale * len(scales))])
        top, left = crop_positions(height, width, crop_height, crop_width)[int(place * 5)]
        return View(top, left, crop_height, crop_width, flip)

    def centre(self, height: int, width: int) -> View:
        """The centre crop of the image's shorter side, or the whole image where there are no crops."""
        if not self.corner_crops:
            return View(0, 0, height, width)
        side = min(height, width)
        return View(*crop_positions(height, width, side, side)[4], side, side)
