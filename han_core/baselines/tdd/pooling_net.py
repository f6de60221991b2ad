"""A net whose maps of a clip's frames are pooled along tracks, frame by frame: no maps are kept."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch

from han_core.baselines.tdd.channels import channel_name
from han_core.baselines.tdd.clip_images import ClipImages, ImageBatch, input_size, net_input
from han_core.baselines.tdd.pooling import PooledMaps
from han_core.baselines.tdd.tracks import Tracks
from han_core.devices import Precision, arithmetic, stored_type
from han_core.nets.preprocess import Convention
from han_core.nets.vgg16 import VGG16


class PoolingNet:
    """A net that turns a clip and its tracks into descriptors, run by one thread; a context manager.

    Args:
        net: its weights are converted in place.
        convention: scale of its input.
        layers: whose maps are pooled: convolutions, or poolings up to ``pool4``.
        batch: largest number of frames of a forward pass, which never holds those of two clips: rounding may depend
            on what a pass holds, and a clip's descriptors must not depend on which other clips are in work.
        precision: arithmetic of the net. Maps are summed in float32.
    """

    def __init__(
        self,
        net: VGG16,
        convention: Convention,
        *,
        layers: Sequence[str],
        batch: int = 8,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self._layers, self._batch, self._convention = tuple(layers), batch, convention
        self._precision, self._device, self._dtype = precision, torch.device(device), stored_type(precision)
        self._net = net.to(self._device, self._dtype).eval()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")

    def descriptors(
        self, images: ClipImages, tracks: Tracks, *, factor: float = 1.0, step: int = 1
    ) -> dict[str, np.ndarray]:
        """Channel -> (n, C) float32: descriptors of each track, for each layer and normalisation.

        May be called from any number of threads; the net's thread takes one forward pass after the other. Images are
        read in the thread that calls. Memory beyond the result's own size: one batch.

        Args:
            images: of the clip, whole; all of them decide the maxima over space and time.
            factor: size of the net's input by that of the images.
            step: the net looks at every so many-th frame; points of frames between two of them are pooled from the
                nearer one's maps, from the earlier one's if both are as near.

        Raises:
            TracksError: a track runs beyond the clip.
            ClipError: an activation is not finite.
            ClipFileError: the images are damaged.
        """
        tracks.check(images.frames)
        size = input_size(images.height, images.width, factor)
        pooled: dict[str, PooledMaps] = {}
        looked_at = range(0, images.frames, step)
        serving = served_frames(images.frames, step)
        for batch in images.batches(looked_at, self._batch):
            wanted = [next(serving) for _ in batch.frames]
            self._thread.submit(self._add, batch, wanted, size, tracks, pooled).result()
        return self._thread.submit(_named, pooled).result()

    def _add(
        self,
        batch: ImageBatch,
        serving: Sequence[range],
        size: tuple[int, int],
        tracks: Tracks,
        pooled: dict[str, PooledMaps],
    ) -> None:
        images = net_input(batch, self._convention, size, device=self._device, dtype=self._dtype)
        with arithmetic(self._precision):
            extracted = self._net.extract(images, self._layers)
        for layer, maps in extracted.items():
            by_place = maps.permute(0, 2, 3, 1)
            if layer not in pooled:
                pooled[layer] = PooledMaps(tracks, *by_place.shape[1:], self._device)
            for one, frames in zip(by_place, serving, strict=True):
                pooled[layer].add(one, frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


def served_frames(frames: int, step: int) -> Iterator[range]:
    """For each frame that the net looks at (every ``step``-th from 0), the frames of the clip that its maps serve.

    Example:
        >>> [list(served) for served in served_frames(8, 3)]
        [[0, 1], [2, 3, 4], [5, 6, 7]]
    """
    looked_at = range(0, frames, step)
    for number, frame in enumerate(looked_at):
        last = number == len(looked_at) - 1
        yield range(max(0, frame - (step - 1) // 2), frames if last else frame + step // 2 + 1)


def _named(pooled: dict[str, PooledMaps]) -> dict[str, np.ndarray]:
    return {
        channel_name(layer, normalisation): values.cpu().numpy()
        for layer, maps in pooled.items()
        for normalisation, values in maps.descriptors().items()
    }
