"""What the two nets look at: an RGB frame, or a stack of L flow fields as 2L channels.

The channels of a stack are x and y of its first field, x and y of the second, and so on.

Conventions of the input, by the name of the weights that were trained with them (``Convention``):

=============  =======================================  ==================================
name           spatial                                  temporal (flow levels 0..255)
=============  =======================================  ==================================
``caffe``      RGB 0..255 minus (123.68, 116.779,       (level - 127.5)
               103.939)
``torchvision``  (RGB / 255 - mean) / std of ImageNet   (level - 127.5) / 255 / 0.226
=============  =======================================  ==================================

127.5 is the level of no motion. In both conventions the temporal input has the scale of the spatial one, because a
temporal net may start from the weights of a spatial one; 0.226 is the mean of ImageNet's three deviations. A net that
says itself which input it was trained with has a :class:`Scale` in place of a convention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Convention = Literal["caffe", "torchvision"]
SIZE = 224  # side of the input image in pixels
_MEAN = {"caffe": (123.68, 116.779, 103.939), "torchvision": (0.485 * 255, 0.456 * 255, 0.406 * 255)}
_SCALE = {"caffe": (1.0, 1.0, 1.0), "torchvision": (0.229 * 255, 0.224 * 255, 0.225 * 255)}
_NO_MOTION = 127.5
_FIELDS = 8  # rescaled at a time on a CPU: their buffers stay in its cache and are used again
_FLOW_SCALE = {"caffe": 1.0, "torchvision": 0.226 * 255}


@dataclass(frozen=True)
class Scale:
    """The input that a net was trained with, where it is no convention: as ``torchvision`` with other numbers. Flow is
    divided by the mean of the three deviations."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of RGB values 0..1; ImageNet's are the default."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size: int = SIZE
    """Side of the input image in pixels."""


def normalize_frames(images: Tensor, convention: Convention | Scale) -> Tensor:
    """RGB values 0..255 (n, 3, height, width) float -> the scale of the convention."""
    if isinstance(convention, Scale):
        means, scales = ([255 * value for value in values] for values in (convention.mean, convention.std))
    else:
        means, scales = _MEAN[_known(convention)], _SCALE[convention]
    mean, scale = (_beside(images, values)[:, None, None] for values in (means, scales))
    return (images - mean) / scale


def normalize_flow(
    levels: Tensor, convention: Convention | Scale, zoom: tuple[float, float] | Sequence[tuple[float, float]]
) -> Tensor:
    """Flow levels (n, 2L, height, width) float, x and y interleaved -> the scale of the convention.

    Args:
        zoom: by how much the images were enlarged in width and in height after the flow was computed: the vectors
            grow with them. A negative first value is a mirrored image, whose x runs the other way. One pair for all
            images, or one for each.
    """
    own = isinstance(convention, Scale)
    scale = 255 * sum(convention.std) / 3 if own else _FLOW_SCALE[_known(convention)]
    factor = _beside(levels, zoom) / scale
    factors = factor.reshape(-1, 2).repeat(1, levels.shape[1] // 2)
    return (levels - _NO_MOTION).mul_(factors[:, :, None, None])


def _beside(images: Tensor, values: Sequence[float] | Sequence[tuple[float, float]]) -> Tensor:
    """Numbers on the device of the images, float32; nothing waits until a GPU has them."""
    return torch.tensor(values, dtype=torch.float32).to(images.device, non_blocking=True)


def spatial_input(
    frames: np.ndarray | Tensor,
    convention: Convention | Scale,
    *,
    device: torch.device | str = "cpu",
    size: int | None = None,
) -> Tensor:
    """Frames (n, height, width, 3) uint8 RGB -> (n, 3, size, size) float32, rescaled, not cropped.

    Args:
        frames: an array, or a tensor, which may be on the device.
        size: None is that of the convention.
    """
    images = torch.as_tensor(frames).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return normalize_frames(resize(images, size or input_size(convention)), convention)


def temporal_input(
    levels: np.ndarray | Tensor,
    fields: np.ndarray,
    convention: Convention | Scale,
    *,
    device: torch.device | str = "cpu",
    size: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Flow fields -> stacks (n, 2L, size, size) of ``dtype``, rescaled (in float32), not cropped.

    Args:
        levels: (m, 2, height, width) uint8, x first; each field once, however many stacks it is in. An array, or a
            tensor, which may be on the device.
        fields: (n, L) indices into ``levels``, e.g. from :func:`stack_fields`.
        size: None is that of the convention.
    """
    size = size or input_size(convention)
    height, width = levels.shape[2:]
    zoom = (size / width, size / height)
    levels = torch.as_tensor(levels).to(device, non_blocking=True)
    parts = levels.split(_FIELDS) if levels.device.type == "cpu" else (levels,)
    inputs = torch.cat([normalize_flow(resize(part, size), convention, zoom).to(dtype) for part in parts])
    wanted = torch.from_numpy(np.asarray(fields, np.int64)).to(device, non_blocking=True)
    return inputs[wanted].flatten(1, 2)


def input_size(convention: Convention | Scale) -> int:
    """Side of the input image in pixels."""
    return convention.size if isinstance(convention, Scale) else SIZE


def resize(images: Tensor, size: int = SIZE) -> Tensor:
    """Images (n, channels, height, width) -> (n, channels, size, size) float32, bilinear with antialiasing."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)


def _known(convention: str) -> str:
    if convention not in get_args(Convention):
        raise ValueError(f"no input convention {convention!r}; there are {' and '.join(get_args(Convention))}")
    return convention
