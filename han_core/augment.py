"""Random crops and flips of frames and flow stacks while a net is fine-tuned.

Corner and centre crops with scale jitter, as "Towards good practices for very deep two-stream ConvNets" (Wang et
al. 2015) describes them. What is drawn (:func:`draw_view`) is apart from how it is applied (:func:`apply_views`):
draws are tiny, seeded for each sample and made on the CPU, pixels are moved on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from han_core.two_stream import SIZE, Convention, normalize_flow, normalize_frames, resize


@dataclass(frozen=True)
class View:
    """A rectangle of an image in pixels, perhaps mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn.

    ``scales`` are crop sides as shares of the image's shorter side, drawn independently for width and height. The
    crop lies in one of the four corners or in the centre. Without ``corner_crops`` the whole image is taken.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    corner_crops: bool = True
    flip: bool = True

    def __post_init__(self) -> None:
        if self.corner_crops and not self.scales:
            raise ValueError("scales: name at least one scale, e.g. [1], or set corner_crops to false")


def draw_view(random: np.random.Generator, height: int, width: int, augmentation: Augmentation) -> View:
    """Draw a view of an image of this size; always the same number of draws, so settings do not shift others."""
    pick_height, pick_width, place, mirror = random.random(4)
    flip = bool(augmentation.flip and mirror < 0.5)
    if not augmentation.corner_crops:
        return View(0, 0, height, width, flip)
    scales, shorter = augmentation.scales, min(height, width)
    crop_height = max(1, round(shorter * scales[int(pick_height * len(scales))]))
    crop_width = max(1, round(shorter * scales[int(pick_width * len(scales))]))
    top, left = crop_positions(height, width, crop_height, crop_width)[int(place * 5)]
    return View(top, left, crop_height, crop_width, flip)


def crop_positions(height: int, width: int, crop_height: int, crop_width: int) -> tuple[tuple[int, int], ...]:
    """(top, left) of the four corner crops and the centre crop."""
    bottom, right = height - crop_height, width - crop_width
    return ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))


def apply_views(
    images: Sequence[np.ndarray],
    views: Sequence[View],
    *,
    kind: Literal["frames", "flow"],
    convention: Convention,
    device: torch.device | str = "cpu",
    size: int = SIZE,
) -> Tensor:
    """Cut, mirror and rescale images to one batch (n, channels, size, size) float32 in the net's scale.

    Flow vectors grow with the image they lie in, and x changes its sign where the image is mirrored.

    Args:
        images: each (channels, height, width) uint8, of any height and width: RGB, or flow levels with x and y
            interleaved.
        views: the rectangle of each image.
    """
    # One rescaling an image: the rectangles differ in size. A micro batch has tens of images, not thousands.
    batch = []
    for image, view in zip(images, views, strict=True):
        rows, columns = slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)
        pixels = resize(torch.from_numpy(image[:, rows, columns]).to(device)[None], size)
        pixels = pixels.flip(3) if view.flip else pixels
        if kind == "flow":
            sign = -1 if view.flip else 1
            pixels = normalize_flow(pixels, convention, (sign * size / view.width, size / view.height))
        batch.append(pixels)
    stacked = torch.cat(batch)
    return stacked if kind == "flow" else normalize_frames(stacked, convention)
