"""Rectangles of images: cut, mirrored and rescaled to a batch that a net reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from han_core.devices import Precision, stored_type
from han_core.nets.preprocess import SIZE, Convention, normalize_flow, normalize_frames, resize

Crops = Literal["whole", 1, 5, 10]
"""Crops by which a net is tested: the whole image; or its centre, with the corners, and all mirrored."""
_TEST_SIDE = 256  # shorter side of a frame out of which test crops are cut


@dataclass(frozen=True)
class View:
    """A rectangle of an image in pixels, perhaps mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def views_for_testing(height: int, width: int, crops: Crops) -> list[View]:
    """The crops by which a net is tested: the centre; with the four corners; and all of them mirrored.

    As in the two-stream ConvNets of Simonyan and Zisserman (2014): 224x224 out of a frame whose shorter side is 256.
    The whole image, squeezed into a square, suits nets that were trained on whole images.
    """
    if crops == "whole":
        return [View(0, 0, height, width)]
    side = round(min(height, width) * SIZE / _TEST_SIDE)
    corners_and_centre = [View(*place, side, side) for place in crop_positions(height, width, side, side)]
    views = corners_and_centre[4:] if crops == 1 else corners_and_centre
    return views + [replace(view, flip=True) for view in views] if crops == 10 else views


def crop_positions(height: int, width: int, crop_height: int, crop_width: int) -> tuple[tuple[int, int], ...]:
    """(top, left) of the four corner crops and the centre crop."""
    bottom, right = height - crop_height, width - crop_width
    return ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))


def cut(image: np.ndarray, view: View) -> tuple[np.ndarray, View]:
    """The pixels that a view shows, copied, and the view of them that remains: all of them, perhaps mirrored."""
    rows, columns = slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)
    return np.ascontiguousarray(image[:, rows, columns]), replace(view, top=0, left=0)


def apply_views(
    images: Sequence[np.ndarray],
    views: Sequence[View],
    *,
    kind: Literal["frames", "flow"],
    convention: Convention,
    device: torch.device | str = "cpu",
    size: int = SIZE,
    precision: Precision = "float32",
) -> Tensor:
    """Cut, mirror and rescale images to one batch (n, channels, size, size) float32 in the net's scale.

    Flow vectors grow with the image they lie in, and x changes its sign where the image is mirrored. On a GPU the
    whole batch is rescaled at once (:func:`resample`); results agree with the CPU's to rounding.

    Args:
        images: each (channels, height, width) uint8, of any height and width: RGB, or flow levels with x and y
            interleaved.
        views: the rectangle of each image.
        precision: of the net. Where it has 16 bits a GPU rescales with no more.
    """
    device = torch.device(device)
    pieces = [cut(image, view)[0] for image, view in zip(images, views, strict=True)]
    flips = [view.flip for view in views]
    batch = rescale(pieces, flips, size, device, precision)
    return _in_the_nets_scale(batch, views, kind, convention, size)


def views_of_whole_images(
    images: Tensor,
    views: Sequence[View],
    *,
    kind: Literal["frames", "flow"],
    convention: Convention,
    size: int = SIZE,
    precision: Precision = "float32",
) -> Tensor:
    """As :func:`apply_views`, of images that are on a GPU already: (n, channels, height, width) uint8, one for each
    view. Nothing is cut on the host, and the host waits for nothing."""
    sides = [(view.height, view.width) for view in views]
    corners = [(view.top, view.left) for view in views]
    flips = [view.flip for view in views]
    batch = resample(images, sides, flips, size, corners=corners, products=_products(precision))
    return _in_the_nets_scale(batch, views, kind, convention, size)


def _in_the_nets_scale(
    batch: Tensor, views: Sequence[View], kind: Literal["frames", "flow"], convention: Convention, size: int
) -> Tensor:
    if kind == "frames":
        return normalize_frames(batch, convention)
    zooms = [((-size if view.flip else size) / view.width, size / view.height) for view in views]
    return normalize_flow(batch, convention, zooms)


def rescale(
    pieces: Sequence[np.ndarray],
    flips: Sequence[bool],
    size: int,
    device: torch.device,
    precision: Precision = "float32",
) -> Tensor:
    """Rescale, and mirror where asked for, to one batch on the device, in the way that is quickest there for a net of
    this precision."""
    if device.type == "cpu":
        return rescale_each(pieces, flips, size)
    return rescale_at_once(pieces, flips, size, device, _products(precision))


def _products(precision: Precision) -> torch.dtype:
    """Float16 for bfloat16 as well: it has more bits, and pixels and weights are no larger than it can be."""
    return torch.float32 if stored_type(precision) == torch.float32 else torch.float16


def rescale_each(pieces: Sequence[np.ndarray], flips: Sequence[bool], size: int) -> Tensor:
    """Rescale and mirror images one after the other: what fits into a processor's cache is fastest.

    Args:
        pieces: (channels, height, width) uint8, of any height and width.
        flips: which are mirrored left to right.

    Returns:
        (n, channels, size, size) float32.
    """
    shape = len(pieces), len(pieces[0]), size, size
    batch = torch.empty(shape, memory_format=torch.channels_last)
    for row, piece, flip in zip(batch, pieces, flips, strict=True):
        image = torch.from_numpy(piece)[None]
        if max(piece.shape[1:]) > size:
            image = resize(image, size)
        else:  # nothing shrinks, so nothing is smoothed: the plain function is the same, and six times as fast
            image = image.to(torch.float32, memory_format=torch.channels_last)
            image = F.interpolate(image, (size, size), mode="bilinear", align_corners=False)
        row.copy_(image[0].flip(2) if flip else image[0])
    return batch


def rescale_at_once(
    pieces: Sequence[np.ndarray],
    flips: Sequence[bool],
    size: int,
    device: torch.device,
    products: torch.dtype = torch.float32,
) -> Tensor:
    """As :func:`rescale_each`, with one copy to the device and a few large operations there."""
    pixels, sides = pack(pieces, pinned=torch.cuda.is_available())
    return resample(pixels.to(device, non_blocking=True), sides, flips, size, products=products)


def pack(pieces: Sequence[np.ndarray], *, pinned: bool) -> tuple[Tensor, list[tuple[int, int]]]:
    """Images of any sizes in one tensor (n, channels, height, width) uint8, and their sizes.

    What lies beyond a smaller image is arbitrary.

    Args:
        pinned: put them where a GPU can fetch them while the processor continues; needs a GPU.
    """
    sides = [piece.shape[1:] for piece in pieces]
    height, width = (max(side) for side in zip(*sides, strict=True))
    shape = len(pieces), len(pieces[0]), height, width
    packed = torch.empty(shape, dtype=torch.uint8, pin_memory=True) if pinned else None
    array = np.empty(shape, np.uint8) if packed is None else packed.numpy()
    # NumPy's copies: torch would wake its threads for each, and wait for them where all cores decode.
    for row, piece, (rows, columns) in zip(array, pieces, sides, strict=True):
        row[:, :rows, :columns] = piece
    return torch.from_numpy(array) if packed is None else packed, sides


def resample(
    pixels: Tensor,
    sides: Sequence[tuple[int, int]],
    flips: Sequence[bool],
    size: int = SIZE,
    *,
    corners: Sequence[tuple[int, int]] | None = None,
    products: torch.dtype = torch.float32,
) -> Tensor:
    """Rescale, and mirror where asked for, the packed images of a batch by two batched matrix products.

    The same function as :func:`han_core.nets.preprocess.resize`: bilinear, with antialiasing where an image shrinks.
    Each output row is a weighted mean of input rows, so rescaling is a product with a sparse matrix from either side,
    and a mirror is one whose rows run backwards. The host waits for nothing.

    Args:
        pixels: (n, channels, height, width), from :func:`pack`.
        sides: (height, width) of each image, or of the rectangle of it that is wanted.
        flips: which are mirrored left to right.
        corners: (top, left) of each rectangle; None is (0, 0) for all.
        products: type of what is multiplied; sums are float32. ``torch.float16`` is off by a quarter of a level of 255
            at most, like rounding the result to bfloat16, and many times as fast on a GPU.

    Returns:
        (n, channels, size, size) float32.
    """
    device = pixels.device
    heights, widths = torch.tensor(sides, dtype=torch.float32).to(device, non_blocking=True).T
    places = torch.tensor(corners or [(0, 0)] * len(sides), dtype=torch.float32).to(device, non_blocking=True)
    mirrored = torch.tensor(flips).to(device, non_blocking=True)
    rows = _weights(heights, pixels.shape[2], size, places[:, 0])
    columns = _weights(widths, pixels.shape[3], size, places[:, 1])
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    rows, columns = rows.to(products), columns.to(products)
    return (rows[:, None] @ (pixels.to(products) @ columns.transpose(1, 2)[:, None])).float()


def _weights(lengths: Tensor, longest: int, size: int, starts: Tensor) -> Tensor:
    """Weights (n, size, longest) of ``longest`` input pixels in each of ``size`` output pixels, for inputs of which the
    ``lengths`` (n,) pixels from ``starts`` (n,) on count: a triangle around the output pixel's centre, as wide as the
    larger of the pixels."""
    # By a tensor: by a number a GPU multiplies with its reciprocal, and a bit of 250 pixels is 4e-5 of a weight.
    scale = (lengths / torch.full_like(lengths, size))[:, None, None]
    output = torch.arange(size, device=lengths.device)[:, None] + 0.5
    pixel = torch.arange(longest, device=lengths.device) + 0.5 - starts[:, None, None]
    weights = (1 - (pixel - output * scale).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel > 0) & (pixel < lengths[:, None, None]))
    return weights / weights.sum(2, keepdim=True)
