"""The feature cubes of a clip: T frames through a net, the activations as a clip file (eq. 1 of the paper).

Reading a clip, computing it and writing it are apart, so that they can overlap: reading and writing release the
processor's cores to the net, and the net is one thread's (:class:`CubeNet`), whatever the number of clips in work.
"""

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from han_core.devices import Precision
from han_core.errors import ClipError
from han_core.nets.clip_inputs import ClipFrames
from han_core.nets.preprocess import Convention, Scale, spatial_input, temporal_input
from han_core.nets.torchvision_net import TorchvisionNet
from han_core.nets.vgg16 import VGG16

_LARGEST = float(np.finfo(np.float16).max)


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
        net: VGG16 | TorchvisionNet,
        convention: Convention | Scale,
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


def _to_float16(values: Tensor, layer: str) -> np.ndarray:
    largest = values.abs().max().item() if values.numel() else 0.0
    if not largest <= _LARGEST:  # also true of nan
        raise ClipError(
            f"{layer} reaches {largest:.3g}, but float16 ends at {_LARGEST:.0f}: "
            "the net's weights or its input scale (`input`) are not right"
        )
    return values.to(torch.float16).contiguous().cpu().numpy()
