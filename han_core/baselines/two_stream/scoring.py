"""What a fine-tuned net says of a clip: the test protocol of the two-stream ConvNets (Simonyan and Zisserman 2014).

Equally spaced frames, several crops of each, the class probabilities averaged.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from han_core.devices import Precision, arithmetic, stored_type
from han_core.nets.beside import Copies, OwnMemory, PinnedMemory
from han_core.nets.crops import Crops, apply_views, views_for_testing, views_of_whole_images
from han_core.nets.preprocess import Convention
from han_core.nets.vgg16 import VGG16


class ScoringNet:
    """A net that scores images, run by one thread; a context manager.

    Args:
        net: its weights are converted in place.
        convention: scale of its input.
        kind: what its images are.
        crops: of each image: 1 (centre), 5 (and the corners), 10 (and all mirrored), or the whole of it.
        batch: largest number of crops of a forward pass, which never holds those of two clips: rounding may depend
            on what a pass holds, and a clip's scores must not depend on which other clips are in work.
        precision: arithmetic of the net.
    """

    def __init__(
        self,
        net: VGG16,
        convention: Convention,
        *,
        kind: Literal["frames", "flow"],
        crops: Crops = 10,
        batch: int = 25,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self._convention, self._kind, self._crops, self._batch = convention, kind, crops, batch
        self._precision, self._device, self._dtype = precision, torch.device(device), stored_type(precision)
        self._net = net.to(self._device, self._dtype).eval()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")
        self._beside = self._device.type != "cpu"
        self._own = OwnMemory()
        self._copies = Copies(self._device)

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Class probabilities (n, classes) float32 of n images (channels, height, width) uint8, mean over the crops.

        May be called from any number of threads; clips are computed one after the other.
        """
        if not self._beside:
            return self._thread.submit(self._compute, images).result()
        pinned = self._own.pinned
        pixels = pinned.take("images", (len(images), *images[0].shape), torch.uint8)
        np.stack(images, out=pixels.numpy())  # in this thread: the net's only tells the GPU what to do
        found, mark = self._thread.submit(self._launch, pixels, pinned).result()
        self._copies.finish(mark)
        return found.numpy().copy()

    @torch.inference_mode()
    def _launch(self, pixels: Tensor, pinned: PinnedMemory) -> "tuple[Tensor, torch.cuda.Event | None]":
        """Ask the GPU for all of a clip, whose images are of one size, without waiting for any of it."""
        views = views_for_testing(*pixels.shape[2:], self._crops)
        wanted = [(image, view) for image in range(len(pixels)) for view in views]
        images = self._copies.upload(pixels)
        found, how = [], {"kind": self._kind, "convention": self._convention, "precision": self._precision}
        with arithmetic(self._precision):
            for start in range(0, len(wanted), self._batch):
                numbers, part = zip(*wanted[start : start + self._batch], strict=True)
                chosen = images[torch.tensor(numbers).to(self._device, non_blocking=True)]
                batch = views_of_whole_images(chosen, part, **how)
                found.append(self._net(batch.to(self._dtype)).float().softmax(1))
            mean = torch.cat(found).unflatten(0, (len(pixels), -1)).mean(1)
        target = pinned.take("probabilities", tuple(mean.shape), torch.float32)
        self._copies.download(mean, target)
        return target, self._copies.mark()

    @torch.inference_mode()
    def _compute(self, images: Sequence[np.ndarray]) -> np.ndarray:
        wanted = [(image, view) for image in images for view in views_for_testing(*image.shape[1:], self._crops)]
        found = []
        for start in range(0, len(wanted), self._batch):
            pixels, views = zip(*wanted[start : start + self._batch], strict=True)
            batch = apply_views(pixels, views, kind=self._kind, convention=self._convention, device=self._device)
            found.append(self._net(batch.to(self._dtype)).float().softmax(1))
        return torch.cat(found).unflatten(0, (len(images), -1)).mean(1).cpu().numpy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
