"""Single frames, and flow stacks, out of clip files: what a net sees of a clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from han_core.images.reader import ImageReader
from han_core.nets.sampling import sample_frames, stack_fields
from han_core.nets.views import PLAIN, ClipView


class TrainingClips(Protocol):
    """Where samples come from; :class:`FrameClips` and :class:`FlowClips` read clip files."""

    labels: Sequence[int]

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(channels, height, width) uint8: the frame, or the stack around it, at ``moment`` in [0, 1) of a clip.

        Or several frames, one after the other as channels: whatever is looked at as a whole.
        """


@dataclass(frozen=True)
class FrameClips:
    """Single frames out of clip files of kind frames."""

    paths: Sequence[Path]
    labels: Sequence[int]
    kind: Literal["frames"] = "frames"
    reader: ImageReader = field(default_factory=ImageReader, repr=False)

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(3, height, width) uint8 RGB, a view of OpenCV's BGR."""
        return self.at(clip, int(moment * self.length(clip)))

    def length(self, clip: int) -> int:
        """Number of frames."""
        return self.reader.count(self.paths[clip], "frames")

    def at(self, clip: int, frame: int) -> np.ndarray:
        """As :meth:`read`, by the number of the frame."""
        (image,) = self.reader.decode(self.paths[clip], "frames", frame, frame, grey=False)
        return image[..., ::-1].transpose(2, 0, 1)


@dataclass(frozen=True)
class FlowClips:
    """Stacks of flow fields out of clip files of kind flow."""

    paths: Sequence[Path]
    labels: Sequence[int]
    stack: int
    kind: Literal["flow"] = "flow"
    reader: ImageReader = field(default_factory=ImageReader, repr=False)

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(2 * stack, height, width) uint8 levels, x and y interleaved."""
        return self.at(clip, int(moment * self.length(clip)))

    def length(self, clip: int) -> int:
        """Number of frames: one more than there are flow fields."""
        return self.reader.counts(self.paths[clip], ("x", "y"))[0] + 1

    def at(self, clip: int, frame: int) -> np.ndarray:
        """As :meth:`read`, by the number of the frame in the middle."""
        path = self.paths[clip]
        (fields,) = stack_fields([frame], self.stack, self.length(clip) - 1).tolist()
        first, last = fields[0], fields[-1]
        x, y = (self.reader.decode(path, name, first, last, grey=True) for name in ("x", "y"))
        return np.stack([component[i - first] for i in fields for component in (x, y)])


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip that are computed, as the net's stream sees them. Repeated frames are there once."""

    frames: np.ndarray
    """(T,) int32: frame index of each of the T."""
    order: np.ndarray
    """(T,) which of the frames below each of the T is."""
    pixels: np.ndarray
    """(m, height, width, 3) uint8 RGB frames, or (m, 2, height, width) uint8 flow levels."""
    fields: np.ndarray | None = None
    """Temporal stream: (n, L) which of ``pixels`` make up each stack."""

    def images(self) -> list[np.ndarray]:
        """Each distinct frame (3, height, width), or stack (2L, height, width), x and y interleaved; uint8."""
        if self.fields is None:
            return list(self.pixels.transpose(0, 3, 1, 2))
        return [self.pixels[fields].reshape(-1, *self.pixels.shape[2:]) for fields in self.fields]

    def __len__(self) -> int:
        return len(self.pixels) if self.fields is None else len(self.fields)


def new_memory(shape: tuple[int, ...]) -> np.ndarray:
    """A new array uint8, whose content is arbitrary."""
    return np.empty(shape, np.uint8)


Memory = Callable[[tuple[int, ...]], np.ndarray]
"""Gives an array (shape) uint8 to be filled."""

Film = Callable[[np.ndarray, np.ndarray], None]
"""Changes the pixels of a clip in place, given (m,) which frame or flow field of the clip each of them is."""


def read_clip_frames(
    path: str | Path,
    frames: int,
    *,
    stack: int = 0,
    view: ClipView = PLAIN,
    film: Film | None = None,
    memory: Memory = new_memory,
    reader: ImageReader | None = None,
) -> ClipFrames:
    """Read T equally spaced frames of a clip, or the flow stacks around them. Holds no lock of HDF5's but for a moment.

    Args:
        path: a clip file of kind frames (``stack`` 0) or flow.
        frames: T; the first and the last frame are among them in the plain view.
        stack: L, flow fields of a stack; 0 for the spatial stream.
        view: which frames, and whether they are mirrored.
        film: makes a shaken view of them, when they are mirrored already: (m, height, width, 3) RGB or
            (m, 2, height, width) levels, and their numbers.
        memory: gives the array that holds the pixels.
        reader: of the clip's file; by default a new one, which keeps no file's index when the clip is done.

    Raises:
        ClipFileError: the file is damaged, or holds no images.
    """
    path, reader = Path(path), reader or ImageReader()
    names = ("x", "y") if stack else ("frames",)
    count = reader.counts(path, names)[0] + bool(stack)
    chosen = sample_frames(count, frames, thirds=view.thirds)
    distinct, order = np.unique(chosen, return_inverse=True)
    if not stack:
        images = reader.decode_some(path, "frames", distinct.tolist(), grey=False)
        pixels = memory((len(images), *images[0].shape))
        for row, image in zip(pixels, images, strict=True):
            row[...] = image[:, ::-1, ::-1] if view.mirrored else image[..., ::-1]  # BGR, as OpenCV reads it, to RGB
        if film is not None:
            film(pixels, distinct)
        return ClipFrames(chosen, order, pixels)
    wanted, fields = np.unique(stack_fields(distinct, stack, count - 1), return_inverse=True)
    x, y = (reader.decode_some(path, name, wanted.tolist(), grey=True) for name in names)
    levels = memory((len(x), 2, *x[0].shape))
    for row, across, down in zip(levels, x, y, strict=True):
        if view.mirrored:  # around 127.5, no motion: what moved to the left moves to the right
            np.subtract(255, across[:, ::-1], out=row[0])
            row[1] = down[:, ::-1]
        else:
            row[0], row[1] = across, down
    if film is not None:
        film(levels, wanted)
    return ClipFrames(chosen, order, levels, fields.reshape(len(distinct), stack))
