"""The feature cubes of a clip: T frames through a net, the activations as a clip file (eq. 1 of the paper).

Reading a clip, computing it and writing it are apart, so that they can overlap: reading and writing release the
processor's cores to the net, and the net is one thread's (:class:`CubeNet`), whatever the number of clips in work.

On a GPU that thread only says what is to be done, and waits for nothing: a clip's pixels lie in pinned memory and
travel while the clip before is computed, and its cubes come back while the next one is. Whoever asked for them waits.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from han_core.devices import Precision, arithmetic, stored_type
from han_core.errors import ClipError
from han_core.nets.beside import Copies, OwnMemory, PinnedMemory
from han_core.nets.clip_inputs import ClipFrames, new_memory
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
        self._convention, self._precision = convention, precision
        self._device, self._dtype = torch.device(device), stored_type(precision)
        self._net = net.to(self._device, self._dtype).eval()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")
        self._beside = self._device.type != "cpu"
        self._own = OwnMemory()
        self._copies = Copies(self._device)

    def memory(self, shape: tuple[int, ...]) -> np.ndarray:
        """Memory (shape) uint8 for the pixels of a clip. On a GPU it is this thread's, until it asks again."""
        if not self._beside:
            return new_memory(shape)
        return self._own.pinned.take("pixels", shape, torch.uint8).numpy()

    def compute(self, clip: ClipFrames) -> dict[str, np.ndarray]:
        """Layer name -> activations (T, ...) float16, in the order of the T frames.

        May be called from any number of threads; clips are computed one after the other.

        Raises:
            ClipError: an activation does not fit into float16.
        """
        if not self._beside:
            return self._thread.submit(self._compute, clip).result()
        coming = _Returning({}, self._own.pinned)
        self._thread.submit(self._launch, clip, coming).result()
        return coming.values(clip, self.layers)

    def _compute(self, clip: ClipFrames) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        for start in range(0, len(clip), self.batch):
            images = self._input(clip, slice(start, start + self.batch))
            for layer, values in self._net.extract(images, self.layers).items():
                parts[layer].append(_to_float16(values, layer))
        return {layer: np.concatenate(values)[clip.order] for layer, values in parts.items()}

    @torch.inference_mode()
    def _launch(self, clip: ClipFrames, coming: "_Returning") -> None:
        """Ask the GPU for all of a clip, without waiting for any of it."""
        largest = []
        with arithmetic(self._precision):
            for start in range(0, len(clip), self.batch):
                found = self._net.extract(self._input(clip, slice(start, start + self.batch)), self.layers)
                largest.append(torch.stack([_largest(values) for values in found.values()]))
                for layer, values in found.items():
                    target = coming.target(layer, (len(clip), *values.shape[1:]))[start : start + len(values)]
                    self._copies.download(values.to(torch.float16).contiguous(), target)
        self._copies.download(torch.stack(largest), coming.target("largest", (len(largest), len(self.layers))))
        coming.mark = self._copies.mark()

    def _input(self, clip: ClipFrames, part: slice) -> Tensor:
        if clip.fields is None:
            pixels = self._copies.upload(torch.from_numpy(clip.pixels[part])) if self._beside else clip.pixels[part]
            return spatial_input(pixels, self._convention, device=self._device).to(self._dtype)
        wanted, fields = np.unique(clip.fields[part], return_inverse=True)
        fields = fields.reshape(-1, clip.fields.shape[1])
        if not self._beside:
            levels = clip.pixels[wanted]
        else:  # neighbours in time: a piece of the pinned memory, which need not be copied first
            first, end = int(wanted[0]), int(wanted[-1]) + 1
            levels = self._copies.upload(torch.from_numpy(clip.pixels[first:end]))
            fields = wanted[fields] - first
        return temporal_input(levels, fields, self._convention, device=self._device, dtype=self._dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


@dataclass
class _Returning:
    """The cubes of a clip on their way back from a GPU."""

    targets: dict[str, Tensor]
    """Layer, or ``largest`` -> where it will be. ``largest`` is (passes, layers): the largest value of each."""
    pinned: PinnedMemory
    mark: "torch.cuda.Event | None" = None

    def target(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Where a layer's values go, in pinned memory; the same for all passes of a clip."""
        if name not in self.targets:
            dtype = torch.float32 if name == "largest" else torch.float16
            self.targets[name] = self.pinned.take(name, shape, dtype)
        return self.targets[name]

    def values(self, clip: ClipFrames, layers: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Wait for them, check them, and copy them out of the pinned memory."""
        Copies.finish(self.mark)
        for of_pass in self.targets["largest"].tolist():
            for layer, largest in zip(layers, of_pass, strict=True):
                _check_fits(layer, largest)
        return {layer: self.targets[layer].numpy()[clip.order] for layer in layers}


def _largest(values: Tensor) -> Tensor:
    """Largest magnitude, float32; NaN where there is a NaN. On the device of the values."""
    return values.abs().max().float()


def _to_float16(values: Tensor, layer: str) -> np.ndarray:
    _check_fits(layer, values.abs().max().item() if values.numel() else 0.0)
    return values.to(torch.float16).contiguous().cpu().numpy()


def _check_fits(layer: str, largest: float) -> None:
    if not largest <= _LARGEST:  # also true of nan
        raise ClipError(
            f"{layer} reaches {largest:.3g}, but float16 ends at {_LARGEST:.0f}: "
            "the net's weights or its input scale (`input`) are not right"
        )
