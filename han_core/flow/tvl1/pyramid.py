"""Resizing and warping of image batches in torch, with OpenCV's conventions; used by ``reference`` and ``cuda``."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

BORDER = 4
"""Zero pixels put around an image before it is warped: the cubic kernel reaches two, the rest is for clamping."""


def resize(images: Tensor, size: tuple[int, int], scale: float | None = None) -> Tensor:
    """Bilinear resizing of (..., H, W) to ``size`` (h, w), pixel centres at half-integers, as ``cv2.resize`` does it.

    Args:
        scale: Size of a new pixel's neighbourhood is 1 / scale old pixels. None takes it from the two sizes; the
            pyramid gives its step, because its sizes are rounded.
    """
    left, right, share = _neighbours(images.shape[-1], size[1], scale, images.device)
    images = images[..., left] * (1 - share) + images[..., right] * share
    above, below, share = _neighbours(images.shape[-2], size[0], scale, images.device)
    share = share[:, None]
    return images[..., above, :] * (1 - share) + images[..., below, :] * share


@functools.lru_cache(maxsize=64)
def _neighbours(old: int, new: int, scale: float | None, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Linear interpolation along one axis: the two old pixels of each new one, and the share of the second."""
    first, share = linear_taps(old, new, scale)
    return first.to(device), (first + 1).clamp(max=old - 1).to(device), share.to(device)


def linear_taps(old: int, new: int, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Linear interpolation along one axis: for each of ``new`` pixels the one of ``old`` before it, int64, and the
    share of the one after, float32. ``scale`` as in :func:`resize`."""
    ratio = old / new if scale is None else 1 / scale
    at = ((torch.arange(new, dtype=torch.float64) + 0.5) * ratio - 0.5).clamp(0, old - 1)
    first = at.floor().long()
    return first, (at - first).float()


def gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of (..., H, W) along x and y; at the edge half the one-sided difference."""
    padded = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return dx, dy


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """Values of each image at (x + flow_x, y + flow_y) by cubic convolution (a = -0.75); zero outside the image.

    Args:
        images: (N, C, H, W).
        flow: (N, 2, H, W) pixels.

    Returns:
        (N, C, H, W).
    """
    n, channels, height, width = images.shape
    padded = F.pad(images, (BORDER,) * 4).flatten(2)
    stride = width + 2 * BORDER
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    # Positions farther out than this read only zeros anyway.
    at_x = (x + flow[:, 0]).clamp(1 - BORDER, width + 1)
    at_y = (y + flow[:, 1]).clamp(1 - BORDER, height + 1)
    left, top = at_x.floor(), at_y.floor()
    across, down = _cubic(at_x - left), _cubic(at_y - top)
    corner = (top.long() + BORDER - 1) * stride + left.long() + BORDER - 1
    result = torch.zeros_like(images)
    for j in range(4):
        for i in range(4):
            index = (corner + j * stride + i).view(n, 1, -1).expand(-1, channels, -1)
            taps = padded.gather(2, index).view_as(images)
            result += (down[j] * across[i])[:, None] * taps
    return result


def _cubic(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the taps at -1, 0, 1, 2 for a position t in [0, 1) (Keys' kernel)."""
    a = -0.75
    s = 1 - t
    return (
        a * t * s * s,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((a + 2) * s - (a + 3)) * s * s + 1,
        a * s * t * t,
    )


def median_filter(images: Tensor, side: int) -> Tensor:
    """Median over ``side`` x ``side`` neighbourhoods of (N, C, H, W); the edge is repeated outwards."""
    half = side // 2
    padded = F.pad(images, (half,) * 4, mode="replicate")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows.flatten(4).median(dim=4).values
