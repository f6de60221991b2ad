"""What a trained Slow Fusion says of a clip: equally spaced windows, their centre and its mirror image, averaged
(Karpathy et al. 2014, section 4.1)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from han_core.devices import Precision, arithmetic, stored_type
from han_core.nets.beside import Copies, OwnMemory, PinnedMemory
from han_core.nets.slow_fusion.inputs import ClipWindows
from han_core.nets.slow_fusion.net import SlowFusion


class WindowScorer:
    """A net that scores windows, run by one thread; a context manager.

    Args:
        net: its weights are converted in place.
        flip: average over the windows and their mirror images.
        batch: largest number of windows of a forward pass, which never holds those of two clips: rounding may depend
            on what a pass holds, and a clip's scores must not depend on which other clips are in work.
        precision: arithmetic of the net.
    """

    def __init__(
        self,
        net: SlowFusion,
        *,
        flip: bool,
        batch: int = 10,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self._flip, self._batch = flip, batch
        self._precision, self._device, self._dtype = precision, torch.device(device), stored_type(precision)
        self._net = net.to(self._device, self._dtype).eval()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")
        self._beside = self._device.type != "cpu"
        self._own = OwnMemory()
        self._copies = Copies(self._device)

    def probabilities(self, clip: ClipWindows) -> np.ndarray:
        """Class probabilities (windows, classes) float32, in the order of the windows that were asked for.

        May be called from any number of threads; clips are computed one after the other.
        """
        if not self._beside:
            return self._thread.submit(self._scored, clip).result().numpy()[clip.order]
        pinned = self._own.pinned
        frames = pinned.take("frames", tuple(clip.frames.shape), torch.float32)
        np.copyto(frames.numpy(), clip.frames.numpy())  # in this thread: the net's only tells the GPU what to do
        found, mark = self._thread.submit(self._launch, replace(clip, frames=frames), pinned).result()
        self._copies.finish(mark)
        return found.numpy()[clip.order]

    def _launch(self, clip: ClipWindows, pinned: PinnedMemory) -> "tuple[Tensor, torch.cuda.Event | None]":
        """Ask the GPU for all of a clip, without waiting for any of it. A frame is in ten windows: it travels once."""
        scored = self._scored(replace(clip, frames=self._copies.upload(clip.frames)))
        target = pinned.take("probabilities", tuple(scored.shape), torch.float32)
        self._copies.download(scored, target)
        return target, self._copies.mark()

    @torch.inference_mode()
    def _scored(self, clip: ClipWindows) -> Tensor:
        """Probabilities (n, classes) of the distinct windows, where the frames are."""
        found = []
        with arithmetic(self._precision):
            for start in range(0, len(clip.fields), self._batch):
                windows = clip.input(slice(start, start + self._batch)).to(self._device, self._dtype)
                views = [windows, windows.flip(-1)] if self._flip else [windows]
                found.append(torch.stack([self._net(view).float().softmax(1) for view in views]).mean(0))
        return torch.cat(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
