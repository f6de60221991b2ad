"""VGG-16, as spatial and as temporal net.

Both are torchvision's VGG-16 (configuration D, the same key names); only the number of input channels, of fc6/fc7
units and of classes varies. What they look at is made in :mod:`han_core.nets.preprocess`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from han_core.nets.layered import LayeredNet
from han_core.nets.pooling import MaxPool2

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of configuration D, pooling after pooling. (Importing torchvision takes seconds.)"""


def _name_features() -> dict[str, int]:
    """Name of each layer of ``features`` -> number of its modules up to and with the layer's ReLU or pooling."""
    names, end = {}, 0
    for block, convs in enumerate(_BLOCKS, start=1):
        for conv in range(1, len(convs) + 1):
            end += 2
            names[f"conv{block}_{conv}"] = end
        end += 1
        names[f"pool{block}"] = end
    return names


def _features() -> nn.Sequential:
    """The convolutions, each with its ReLU, and the poolings."""
    modules: list[nn.Module] = []
    channels = 3
    for convs in _BLOCKS:
        for units in convs:
            modules += [nn.Conv2d(channels, units, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = units
        modules.append(MaxPool2())
    return nn.Sequential(*modules)


_FEATURES = _name_features()
_LAST_FEATURE = max(_FEATURES.values())
_CLASSIFIER = {"fc6": 2, "fc7": 5, "fc8": 7}  # modules of ``classifier`` up to and with the layer's ReLU
MAPS = tuple(_FEATURES)
"""Layers that give maps (n, channels, K, K)."""
LAYERS = (*MAPS, "fc6", "fc7")
LEARNT = {
    **{f"features.{end - 2}": name for name, end in _FEATURES.items() if name.startswith("conv")},
    **{f"classifier.{number}": name for number, name in ((0, "fc6"), (3, "fc7"), (6, "fc8"))},
}
"""Module that has weights -> name of its layer."""


class VGG16(LayeredNet):
    """VGG-16 with torchvision's keys (``features.N.weight``, ``classifier.N.weight``).

    Args:
        classes: units of fc8.
        in_channels: 3 for RGB, 2L for stacks of L flow fields.
        fc_size: units of fc6 and fc7.
        dropout: share of units dropped after fc6 and after fc7, in training mode only.

    Weights are whatever ``nn.Conv2d`` starts with; :mod:`han_core.nets.weights` fills them.
    """

    learnt = LEARNT

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 3,
        fc_size: int = 4096,
        dropout: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        super().__init__()
        self.features = _features()
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
