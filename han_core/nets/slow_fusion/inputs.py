"""What Slow Fusion looks at: ten consecutive frames, one square of all of them (Karpathy et al. 2014, section 3.3).

The paper crops frames to their centre, resizes them to 200x200 and takes 170x170 of that, at random while it trains and
in the centre at test. Here the same square is cut out of the frame as it is and rescaled once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from han_core.images.reader import ImageReader
from han_core.nets.crops import View, crop_positions, cut, rescale
from han_core.nets.sampling import sample_frames
from han_core.nets.slow_fusion.net import FRAMES, SIDE

MEAN = 117.0
"""Subtracted from all three channels, 0..255."""


@dataclass(frozen=True)
class SquareViews:
    """A square of 170x170 out of the centre of a frame, after that was resized to ``resize`` pixels a side."""

    resize: int = 200
    flip: bool = True
    """Half of the training samples are mirrored."""

    def draw(self, random: np.random.Generator, height: int, width: int) -> View:
        """Draw the place of the square in a frame of this size, and whether it is mirrored; always three draws."""
        down, across, mirror = random.random(3)
        side, shorter = self._side(height, width), min(height, width)
        room = shorter - side + 1
        top, left = (height - shorter) // 2 + int(down * room), (width - shorter) // 2 + int(across * room)
        return View(top, left, side, side, bool(self.flip and mirror < 0.5))

    def centre(self, height: int, width: int) -> View:
        """The square in the middle, as it is."""
        side = self._side(height, width)
        return View(*crop_positions(height, width, side, side)[4], side, side)

    def _side(self, height: int, width: int) -> int:
        return max(1, round(min(height, width) * SIDE / self.resize))


@dataclass(frozen=True)
class FrameWindows:
    """Windows of ten consecutive frames out of clip files of kind frames, for training.

    A clip that is shorter repeats its last frame.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    reader: ImageReader = field(default_factory=ImageReader, repr=False)

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(30, height, width) uint8: RGB of the first frame, RGB of the second, and so on; the window is the one at
        ``moment`` in [0, 1) of all that the clip has."""
        path = self.paths[clip]
        count = self.reader.count(path, "frames")
        first = int(moment * window_count(count))
        last = min(first + FRAMES, count) - 1
        images = self.reader.decode(path, "frames", first, last, grey=False)
        images += [images[-1]] * (FRAMES - len(images))
        return np.concatenate([image[..., ::-1].transpose(2, 0, 1) for image in images])


def prepare(images: Sequence[np.ndarray], views: Sequence[View], device: torch.device) -> Tensor:
    """Cut, mirror and rescale windows to one batch (n, 3, 10, 170, 170) float32 in the net's scale.

    Args:
        images: windows (30, height, width) uint8, from :meth:`FrameWindows.read`, of any height and width.
        views: the square of each; all frames of a window share it.
    """
    pieces = [cut(image, view)[0] for image, view in zip(images, views, strict=True)]
    scaled = rescale(pieces, [view.flip for view in views], SIDE, torch.device(device))
    return (scaled - MEAN).unflatten(1, (-1, 3)).transpose(1, 2)


def window_count(frames: int) -> int:
    """In how many places of a clip a window may start: one even where the clip is shorter than a window."""
    return max(1, frames - FRAMES + 1)


@dataclass(frozen=True)
class ClipWindows:
    """The windows of a clip that are computed. Windows, and frames, that are in it several times are there once."""

    starts: np.ndarray
    """(windows,) int32: first frame of each window asked for."""
    order: np.ndarray
    """(windows,) which of the distinct windows below each of them is."""
    fields: np.ndarray
    """(n, 10) which of ``frames`` make up each distinct window."""
    frames: Tensor
    """(m, 3, 170, 170) float32 in the net's scale, not mirrored."""

    def input(self, part: slice) -> Tensor:
        """Some of the distinct windows, as the net reads them: (n, 3, 10, 170, 170) float32."""
        fields = torch.from_numpy(self.fields[part]).to(self.frames.device, non_blocking=True)
        return self.frames[fields].transpose(1, 2)


def read_clip_windows(path: str | Path, windows: int, views: SquareViews) -> ClipWindows:
    """Read equally spaced windows of a clip, the first and the last among them, and cut their centre.

    Frames are decoded and rescaled one by one, so that what is held does not depend on the size of the video's frames.

    Args:
        path: a clip file of kind frames.
        windows: how many; a clip with fewer places for them repeats some.

    Raises:
        ClipFileError: the file is damaged, or holds no images.
    """
    path, reader = Path(path), ImageReader()
    count = reader.count(path, "frames")
    starts = sample_frames(window_count(count), windows)
    distinct, order = np.unique(starts, return_inverse=True)
    wanted, fields = np.unique(
        np.minimum(distinct[:, None] + np.arange(FRAMES), count - 1).astype(np.int64), return_inverse=True
    )
    frames = torch.empty(len(wanted), 3, SIDE, SIDE)
    for row, number in zip(frames, wanted.tolist(), strict=True):
        (image,) = reader.decode(path, "frames", number, number, grey=False)
        piece, _ = cut(image[..., ::-1].transpose(2, 0, 1), views.centre(*image.shape[:2]))
        row.copy_(rescale([piece], [False], SIDE, torch.device("cpu"))[0] - MEAN)
    return ClipWindows(starts, order, fields.reshape(-1, FRAMES), frames)
