"""The feature cubes of a clip: T frames through a net, the activations as a clip file (eq. 1 of the paper).

Reading a clip, computing it and writing it are apart, so that they can overlap: reading and writing release the
processor's cores to the net, and the net is one thread's (:class:`CubeNet`), whatever the number of clips in work.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from han_core.clipfile import ClipFile, ClipFileWriter
from han_core.cubefile import write_cube
from han_core.errors import ClipError
from han_core.precision import Precision
from han_core.two_stream import VGG16, Convention, sample_frames, spatial_input, stack_fields, temporal_input

_LARGEST = float(np.finfo(np.float16).max)


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

    def __len__(self) -> int:
        return len(self.pixels) if self.fields is None else len(self.fields)


def read_clip_frames(path: str | Path, frames: int, *, stack: int = 0) -> ClipFrames:
    """Read T equally spaced frames of a clip, or the flow stacks around them.

    Args:
        path: a clip file of kind frames (``stack`` 0) or flow.
        frames: T.
        stack: L, flow fields of a stack; 0 for the spatial stream.
    """
    with ClipFile(path) as file:
        count = file.image_count("x") + 1 if stack else file.image_count("frames")
        chosen = sample_frames(count, frames)
        distinct, order = np.unique(chosen, return_inverse=True)
        if not stack:
            return ClipFrames(chosen, order, np.stack([file.image("frames", int(i)) for i in distinct]))
        wanted, fields = np.unique(stack_fields(distinct, stack, count - 1), return_inverse=True)
        levels = np.stack([[file.image("x", int(i)), file.image("y", int(i))] for i in wanted])
        return ClipFrames(chosen, order, levels, fields.reshape(len(distinct), stack))


class CubeNet:
    """A net that turns frames into cubes, run by one thread; a context manager.

    Args:
        net: its weights are converted in place.
        convention: scale of its input.
        layer, fc: the layers that are kept.
        batch: largest number of images of a forward pass. A pass never holds images of two clips: rounding may
            depend on the size of a pass, and a clip's cube must not depend on which other clips are in work.
        precision: arithmetic of the net.
    """

    def __init__(
        self,
        net: VGG16,
        convention: Convention,
        *,
        layer: str = "conv5_3",
        fc: str = "fc7",
        batch: int = 25,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self.layers = (layer, fc)
        self.batch = batch
        self._convention = convention
        self._device, self._dtype = torch.device(device), getattr(torch, precision)
        self._net = net.to(self._device, self._dtype).eval()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")

    def compute(self, clip: ClipFrames) -> dict[str, np.ndarray]:
        """Layer name -> activations (T, ...) float16, in the order of the T frames.

        May be called from any number of threads; clips are computed one after the other.

        Raises:
            ClipError: an activation does not fit into float16.
        """
        return self._thread.submit(self._compute, clip).result()

    def _compute(self, clip: ClipFrames) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        for start in range(0, len(clip), self.batch):
            images = self._input(clip, slice(start, start + self.batch))
            for layer, values in self._net.extract(images, self.layers).items():
                parts[layer].append(_to_float16(values, layer))
        return {layer: np.concatenate(values)[clip.order] for layer, values in parts.items()}

    def _input(self, clip: ClipFrames, part: slice) -> Tensor:
        if clip.fields is None:
            return spatial_input(clip.pixels[part], self._convention, device=self._device).to(self._dtype)
        wanted, fields = np.unique(clip.fields[part], return_inverse=True)
        fields = fields.reshape(-1, clip.fields.shape[1])
        levels = clip.pixels[wanted]
        return temporal_input(levels, fields, self._convention, device=self._device, dtype=self._dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


def write_cubes(
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    frames: np.ndarray,
    layer: str,
    fc: str,
    values: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int],
) -> None:
    """Write a clip file of kind cubes: ``cubes`` (sparse) and ``<fc>`` float16 (T, ...), and ``frames`` int32 (T,)."""
    facts = {**attributes, "layer": layer, "fc": fc}
    with ClipFileWriter(path, kind="cubes", clip=clip, fingerprint=fingerprint, attributes=facts) as file:
        file.array("frames", frames)
        write_cube(file, values[layer])
        file.array(fc, values[fc], codec="shuffle-zstd")


def _to_float16(values: Tensor, layer: str) -> np.ndarray:
    largest = values.abs().max().item() if values.numel() else 0.0
    if not largest <= _LARGEST:  # also true of nan
        raise ClipError(
            f"{layer} reaches {largest:.3g}, but float16 ends at {_LARGEST:.0f}: "
            "the net's weights or its input scale (`input`) are not right"
        )
    return values.to(torch.float16).contiguous().cpu().numpy()
