"""The spatial and the temporal VGG-16, and what they look at.

Both nets are torchvision's VGG-16 (configuration D, the same key names); only the number of input channels, of
fc6/fc7 units and of classes varies. The spatial net sees an RGB frame, the temporal net a stack of L flow fields as
2L channels: x and y of the first field, x and y of the second, and so on (PAPER.md 2.3).

Conventions of the input, by the name of the weights that were trained with them (``Convention``):

=============  =======================================  ==================================
name           spatial                                  temporal (flow levels 0..255)
=============  =======================================  ==================================
``caffe``      RGB 0..255 minus (123.68, 116.779,       (level - 127.5)
               103.939)
``torchvision``  (RGB / 255 - mean) / std of ImageNet   (level - 127.5) / 255 / 0.226
=============  =======================================  ==================================

127.5 is the level of no motion. In both conventions the temporal input has the scale of the spatial one, because a
temporal net may start from the weights of a spatial one; 0.226 is the mean of ImageNet's three deviations.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

Convention = Literal["caffe", "torchvision"]
SIZE = 224  # side of the input image in pixels

_MEAN = {"caffe": (123.68, 116.779, 103.939), "torchvision": (0.485 * 255, 0.456 * 255, 0.406 * 255)}
_SCALE = {"caffe": (1.0, 1.0, 1.0), "torchvision": (0.229 * 255, 0.224 * 255, 0.225 * 255)}
_NO_MOTION = 127.5
_FIELDS = 8
_FLOW_SCALE = {"caffe": 1.0, "torchvision": 0.226 * 255}


def _name_features() -> dict[str, int]:
    """Name of each layer of ``features`` -> number of its modules up to and with the layer's ReLU or pooling."""
    names, block, conv, end = {}, 1, 1, 0
    for layer in cfgs["D"]:
        if layer == "M":
            end += 1
            names[f"pool{block}"] = end
            block, conv = block + 1, 1
        else:
            end += 2
            names[f"conv{block}_{conv}"] = end
            conv += 1
    return names


_FEATURES = _name_features()
_LAST_FEATURE = max(_FEATURES.values())
_CLASSIFIER = {"fc6": 2, "fc7": 5, "fc8": 7}  # modules of ``classifier`` up to and with the layer's ReLU
LAYERS = (*_FEATURES, "fc6", "fc7")
LEARNT = {
    **{f"features.{end - 2}": name for name, end in _FEATURES.items() if name.startswith("conv")},
    **{f"classifier.{number}": name for number, name in ((0, "fc6"), (3, "fc7"), (6, "fc8"))},
}
"""Module that has weights -> name of its layer."""


class VGG16(nn.Module):
    """VGG-16 with torchvision's keys (``features.N.weight``, ``classifier.N.weight``).

    Args:
        classes: units of fc8.
        in_channels: 3 for RGB, 2L for stacks of L flow fields.
        fc_size: units of fc6 and fc7.
        dropout: share of units dropped after fc6 and after fc7, in training mode only.

    Weights are whatever ``nn.Conv2d`` starts with; :mod:`han_core.weights` fills them.
    """

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 3,
        fc_size: int = 4096,
        dropout: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"])
        if in_channels != 3:
            self.features[0] = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1)
        self.avgpool = _PoolTo7()
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, fc_size),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout[0]),
            nn.Linear(fc_size, fc_size),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout[1]),
            nn.Linear(fc_size, classes),
        )
        self.frozen: str | None = None
        self.to(memory_format=torch.channels_last)

    @property
    def in_channels(self) -> int:
        return self.features[0].in_channels

    @property
    def fc_size(self) -> int:
        return self.classifier[0].out_features

    @property
    def classes(self) -> int:
        return self.classifier[6].out_features

    def freeze(self, last: str | None) -> None:
        """Stop training all layers up to and with ``last`` (e.g. ``"conv4_3"``); None trains all.

        Frozen layers run without a gradient, so nothing is kept of them for the backward pass.
        """
        if last is not None and last not in LAYERS:
            raise ValueError(f"no layer {last!r} to freeze; layers are {', '.join(LAYERS)}")
        self.frozen = last
        trained = self._modules_up_to("fc8")[self._end(last) if last else 0 :]
        self.requires_grad_(False)
        for module in trained:
            module.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (n, classes) of images (n, in_channels, height, width)."""
        x = images.contiguous(memory_format=torch.channels_last)
        modules = self._modules_up_to("fc8")
        end = self._end(self.frozen) if self.frozen else 0
        with torch.no_grad():
            for module in modules[:end]:
                x = module(x)
        for module in modules[end:]:
            x = module(x)
        return x

    @torch.inference_mode()
    def extract(self, images: Tensor, layers: Sequence[str] = ("conv5_3", "fc7")) -> dict[str, Tensor]:
        """Activations of several layers in one forward pass, which stops at the deepest of them.

        Convolutional and fc layers are taken after their ReLU, and no unit is dropped whatever the mode.

        Args:
            images: (n, in_channels, height, width) in the dtype of the weights.
            layers: names out of ``LAYERS``.

        Returns:
            For images of 224x224: conv5_3 (n, 512, 14, 14), pool4 (n, 512, 14, 14), pool5 (n, 512, 7, 7),
            fc6 and fc7 (n, fc_size), in the dtype of the weights.

        Raises:
            ValueError: a layer has no such name.
        """
        unknown = [layer for layer in layers if layer not in LAYERS]
        if unknown:
            raise ValueError(f"no layer {unknown[0]!r}; layers are {', '.join(LAYERS)}")
        wanted = {self._end(layer): layer for layer in layers}
        x, found = images.contiguous(memory_format=torch.channels_last), {}
        for position, module in enumerate(self._modules_up_to("fc8")[: max(wanted)], start=1):
            x = x if isinstance(module, nn.Dropout) else module(x)
            if position in wanted:
                found[wanted[position]] = x
        return {layer: found[layer] for layer in layers}

    def _modules_up_to(self, last: str) -> list[nn.Module]:
        """All modules in the order in which an image meets them, up to and with the layer ``last``."""
        return [*self.features, self.avgpool, nn.Flatten(), *self.classifier][: self._end(last)]

    @staticmethod
    def _end(layer: str) -> int:
        """Number of modules up to and with a layer's ReLU or pooling."""
        if layer in _FEATURES:
            return _FEATURES[layer]
        return _LAST_FEATURE + 2 + _CLASSIFIER[layer]


class _PoolTo7(nn.AdaptiveAvgPool2d):
    """torchvision's pooling to 7x7, left out for images of 224x224: its gradient is not repeatable on a GPU."""

    def __init__(self) -> None:
        super().__init__((7, 7))

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[2:] == (7, 7) else super().forward(x)


def sample_frames(count: int, frames: int) -> np.ndarray:
    """Indices (frames,) int32 of equally spaced frames of a clip, first and last frame included.

    A clip of fewer frames repeats some of them, so every clip gives exactly as many as asked for. One frame asked
    for is the middle one.

    Raises:
        ValueError: the clip has no frames, or none are asked for.
    """
    if count < 1 or frames < 1:
        raise ValueError(f"cannot take {frames} frames out of {count}")
    if frames == 1:
        return np.array([(count - 1) // 2], np.int32)
    # Rounded half up in integers, so that no floating point decides which frame is taken.
    steps = np.arange(frames, dtype=np.int64) * (count - 1)
    return ((2 * steps + frames - 1) // (2 * (frames - 1))).astype(np.int32)


def stack_fields(centres: np.ndarray | Sequence[int], stack: int, count: int) -> np.ndarray:
    """Indices (n, stack) int64 of the flow fields around frames ``centres``, clamped at the clip's ends.

    Flow i goes from frame i to frame i + 1, so for frame t the fields t - L/2 .. t + L/2 - 1 lie evenly around it
    (an odd L has the extra field after it). ``count`` is the number of flow fields of the clip.
    """
    if count < 1 or stack < 1:
        raise ValueError(f"cannot make stacks of {stack} out of {count} flow fields")
    offsets = np.arange(stack, dtype=np.int64) - stack // 2
    return np.clip(np.asarray(centres, np.int64)[:, None] + offsets, 0, count - 1)


def normalize_frames(images: Tensor, convention: Convention) -> Tensor:
    """RGB values 0..255 (n, 3, height, width) float -> the scale of the convention."""
    mean = torch.tensor(_MEAN[_known(convention)], device=images.device)[:, None, None]
    scale = torch.tensor(_SCALE[convention], device=images.device)[:, None, None]
    return (images - mean) / scale


def normalize_flow(
    levels: Tensor, convention: Convention, zoom: tuple[float, float] | Sequence[tuple[float, float]]
) -> Tensor:
    """Flow levels (n, 2L, height, width) float, x and y interleaved -> the scale of the convention.

    Args:
        zoom: by how much the images were enlarged in width and in height after the flow was computed: the vectors
            grow with them. A negative first value is a mirrored image, whose x runs the other way. One pair for all
            images, or one for each.
    """
    factor = torch.tensor(zoom, device=levels.device, dtype=torch.float32) / _FLOW_SCALE[_known(convention)]
    factors = factor.reshape(-1, 2).repeat(1, levels.shape[1] // 2)
    return (levels - _NO_MOTION).mul_(factors[:, :, None, None])


def spatial_input(
    frames: np.ndarray,
    convention: Convention,
    *,
    device: torch.device | str = "cpu",
    size: int = SIZE,
) -> Tensor:
    """Frames (n, height, width, 3) uint8 RGB -> (n, 3, size, size) float32, rescaled, not cropped."""
    images = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2)
    return normalize_frames(resize(images, size), convention)


def temporal_input(
    levels: np.ndarray,
    fields: np.ndarray,
    convention: Convention,
    *,
    device: torch.device | str = "cpu",
    size: int = SIZE,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Flow fields -> stacks (n, 2L, size, size) of ``dtype``, rescaled (in float32), not cropped.

    Args:
        levels: (m, 2, height, width) uint8, x first; each field once, however many stacks it is in.
        fields: (n, L) indices into ``levels``, e.g. from :func:`stack_fields`.
    """
    height, width = levels.shape[2:]
    zoom = (size / width, size / height)
    # A few fields at a time: their buffers stay in the processor's cache and are used again.
    parts = (torch.from_numpy(levels[i : i + _FIELDS]).to(device) for i in range(0, len(levels), _FIELDS))
    inputs = torch.cat([normalize_flow(resize(part, size), convention, zoom).to(dtype) for part in parts])
    wanted = torch.from_numpy(np.asarray(fields, np.int64)).to(device)
    return inputs[wanted].flatten(1, 2)


def resize(images: Tensor, size: int = SIZE) -> Tensor:
    """Images (n, channels, height, width) -> (n, channels, size, size) float32, bilinear with antialiasing."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)


def _known(convention: str) -> str:
    if convention not in get_args(Convention):
        raise ValueError(f"no input convention {convention!r}; there are {' and '.join(get_args(Convention))}")
    return convention
