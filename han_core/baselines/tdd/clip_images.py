"""What a net sees of every frame of a clip, a batch at a time and never the whole clip, and the size it sees it at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from han_core.images.reader import ImageReader
from han_core.nets.preprocess import Convention, normalize_flow, normalize_frames

MULTIPLE = 16
"""Sides of the net's input are multiples of it: of other sides VGG-16's poolings leave the end out."""

_FIELDS = 8  # rescaled at a time


@dataclass(frozen=True)
class ImageBatch:
    """Consecutive ones of a clip's images."""

    frames: Sequence[int]
    """n frames of the clip."""
    pixels: np.ndarray
    """(n, height, width, 3) uint8 RGB, or (m, 2, height, width) uint8 levels of flow fields, each field once."""
    fields: np.ndarray | None = None
    """Flow: (n, stack) which of ``pixels`` make up the stack of each frame."""


class ClipImages:
    """The frames of a clip, or the stacks of flow fields that begin at them.

    The temporal net's input at frame t is fields t to t + stack - 1, as in the original; the last one is repeated
    where the clip ends before. (What the net was trained with lies around t.)

    Args:
        path: a clip file of kind frames (``stack`` 0) or flow.
        stack: flow fields of a stack; 0 for the spatial stream.

    Attributes:
        frames: of the clip.
        height, width: of its images in pixels.

    Raises:
        ClipFileError: here or later, the file is damaged or holds no such images.
    """

    def __init__(self, path: str | Path, *, stack: int = 0) -> None:
        self._path, self._stack = Path(path), stack
        self._reader = ImageReader()
        self._count = self._reader.count(self._path, "x" if stack else "frames")
        self.frames = self._count + 1 if stack else self._count
        self.height, self.width = self._decode("x" if stack else "frames", 0).shape[:2]

    def batches(self, frames: Sequence[int], size: int) -> Iterator[ImageBatch]:
        """The images of these frames, in ascending order, ``size`` of them at a time."""
        known: dict[int, np.ndarray] = {}
        for start in range(0, len(frames), size):
            part = frames[start : start + size]
            if not self._stack:
                yield ImageBatch(part, np.stack([self._decode("frames", i)[..., ::-1] for i in part]))
                continue
            wanted = np.minimum(np.asarray(part)[:, None] + np.arange(self._stack), self._count - 1)
            numbers, fields = np.unique(wanted, return_inverse=True)
            known = {i: known[i] if i in known else self._levels(i) for i in numbers.tolist()}
            yield ImageBatch(part, np.stack(list(known.values())), fields.reshape(wanted.shape))

    def _levels(self, number: int) -> np.ndarray:
        return np.stack([self._decode("x", number), self._decode("y", number)])

    def _decode(self, name: str, number: int) -> np.ndarray:
        (image,) = self._reader.decode(self._path, name, number, number, grey=bool(self._stack))
        return image


def input_size(height: int, width: int, factor: float = 1.0) -> tuple[int, int]:
    """Height and width of the net's input for images of this size: the nearest multiples of :data:`MULTIPLE`.

    Example:
        >>> input_size(240, 320), input_size(294, 400), input_size(240, 320, 0.5**0.5)
        ((240, 320), (288, 400), (176, 224))
    """
    rows, columns = (max(1, int(side * factor / MULTIPLE + 0.5)) for side in (height, width))
    return rows * MULTIPLE, columns * MULTIPLE


def net_input(
    batch: ImageBatch,
    convention: Convention,
    size: tuple[int, int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """What the net reads: (n, 3 or 2 * stack, height, width) of ``dtype``, the whole images rescaled to ``size``.

    Flow vectors grow with the image. Rescaling is in float32, bilinear, with antialiasing where an image shrinks.
    """
    if batch.fields is None:
        images = torch.from_numpy(batch.pixels).to(device).permute(0, 3, 1, 2)
        return normalize_frames(_rescaled(images, size), convention).to(dtype)
    zoom = (size[1] / batch.pixels.shape[3], size[0] / batch.pixels.shape[2])
    parts = (torch.from_numpy(batch.pixels[i : i + _FIELDS]).to(device) for i in range(0, len(batch.pixels), _FIELDS))
    levels = torch.cat([normalize_flow(_rescaled(part, size), convention, zoom).to(dtype) for part in parts])
    return levels[torch.from_numpy(batch.fields).to(device)].flatten(1, 2)


def _rescaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    images = images.float()
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
