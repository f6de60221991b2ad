"""Slow Fusion, the spatio-temporal CNN of "Large-scale video classification with convolutional neural networks"
(Karpathy et al. 2014, section 3.1).

An AlexNet whose first three convolutions also reach over time: ten frames become four responses, two, and one. In the
paper's notation, a convolution as C(filters, side, stride):

    C(96,11,3)-N-P-C(256,5,1)-N-P-C(384,3,1)-C(384,3,1)-C(256,3,1)-P-FC(4096)-FC(4096)-FC(classes)

with a ReLU after each but the last, N local response normalisation and P pooling of 2x2. Convolutions keep the size of
their input ("same" padding) and are not split into groups.

=======  ===================  ===================  ========================
layer    kernel (t, y, x)     stride               output (channels, t, y, x)
=======  ===================  ===================  ========================
input                                              3, 10, 170, 170
conv1    4, 11, 11            2, 3, 3              96, 4, 57, 57; pooled 28
conv2    2, 5, 5              2, 1, 1              256, 2, 28, 28; pooled 14
conv3    2, 3, 3              2, 1, 1              384, 1, 14, 14
conv4    1, 3, 3              1, 1, 1              384, 1, 14, 14
conv5    1, 3, 3              1, 1, 1              256, 1, 14, 14; pooled 7
=======  ===================  ===================  ========================
"""

from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional as F

from han_core.nets.layered import LayeredNet
from han_core.nets.pooling import max_pool2

FRAMES, SIDE = 10, 170
"""Of the input: consecutive frames, and pixels a side."""

_KERNELS = {  # layer -> kernel and stride in time, in space
    "conv1": ((4, 2), (11, 3)),
    "conv2": ((2, 2), (5, 1)),
    "conv3": ((2, 2), (3, 1)),
    "conv4": ((1, 1), (3, 1)),
    "conv5": ((1, 1), (3, 1)),
}
_NORMALIZED, _POOLED = ("conv1", "conv2"), ("conv1", "conv2", "conv5")
LAYERS = (*_KERNELS, "fc6", "fc7", "fc8")
_LEFT = 7  # side of what the last pooling leaves


class SlowFusion(LayeredNet):
    """The net; each layer of ``LAYERS`` is a module of that name, with ``weight`` and ``bias``.

    Args:
        classes: units of fc8.
        fc_size: units of fc6 and fc7.
        dropout: share of units dropped after fc6 and after fc7, in training mode only.

    Weights are whatever ``nn.Conv3d`` starts with; :mod:`han_core.nets.slow_fusion.weights` fills them.

    Example:
        >>> import torch
        >>> net = SlowFusion(classes=4, fc_size=16)
        >>> net(torch.zeros(2, 3, 10, 170, 170)).shape
        torch.Size([2, 4])
    """

    filters = (96, 256, 384, 384, 256)
    learnt = MappingProxyType({layer: layer for layer in LAYERS})

    def __init__(self, *, classes: int, fc_size: int = 4096, dropout: tuple[float, float] = (0.5, 0.5)) -> None:
        super().__init__()
        channels = 3
        for filters, (layer, ((time, time_stride), (side, stride))) in zip(self.filters, _KERNELS.items(), strict=True):
            self.add_module(
                layer,
                nn.Conv3d(
                    channels,
                    filters,
                    (time, side, side),
                    (time_stride, stride, stride),
                    (0, side // 2, side // 2),
                ),
            )
            channels = filters
        self.fc6 = nn.Linear(channels * _LEFT * _LEFT, fc_size)
        self.fc7 = nn.Linear(fc_size, fc_size)
        self.fc8 = nn.Linear(fc_size, classes)
        self.dropout = nn.ModuleDict({"fc6": nn.Dropout(dropout[0]), "fc7": nn.Dropout(dropout[1])})

    @property
    def classes(self) -> int:
        return self.fc8.out_features

    @property
    def fc_size(self) -> int:
        return self.fc6.out_features

    def freeze(self, last: str | None) -> None:
        """Stop training all layers up to and with ``last``, e.g. ``"conv5"``; None trains all.

        Nothing below the first layer that is trained has a gradient, so nothing is kept there for the backward pass.
        """
        if last is not None and last not in LAYERS:
            raise ValueError(f"no layer {last!r} to freeze; layers are {', '.join(LAYERS)}")
        first = LAYERS.index(last) + 1 if last else 0
        for number, layer in enumerate(LAYERS):
            self.get_submodule(layer).requires_grad_(number >= first)

    def forward(self, clips: Tensor) -> Tensor:
        """Class scores (n, classes) of clips (n, 3, 10, 170, 170): RGB frames minus the mean."""
        x = clips
        for layer in LAYERS:
            x = self.after(layer, x)
        return x

    def after(self, layer: str, x: Tensor) -> Tensor:
        """What a layer, with its ReLU, normalisation, pooling and dropout, makes of the output of the one before."""
        if layer.startswith("fc"):
            x = self.get_submodule(layer)(x.flatten(1))
            return x if layer == "fc8" else self.dropout[layer](F.relu(x, inplace=True))
        x = F.relu(self.get_submodule(layer)(x), inplace=True)
        if layer in _NORMALIZED:
            x = local_response_norm(x)
        return max_pool2(x.flatten(1, 2)).unflatten(1, x.shape[1:3]) if layer in _POOLED else x


def local_response_norm(x: Tensor, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.5) -> Tensor:
    """x / (k + alpha * sum of the squares of ``size`` neighbouring channels)^beta, at each place by itself.

    As Krizhevsky et al. (2012, section 3.3) write it. ``torch.nn.functional.local_response_norm`` divides alpha by
    ``size``, and has no kernel for bfloat16 on a CPU; here the sum is taken in float32 whatever the type of ``x``.

    Args:
        x: (n, channels, ..), float32 or shorter.
        size: odd.
    """
    values = x.float()
    reach, channels = size // 2, x.shape[1]
    squares = F.pad(values.square(), (0, 0) * (x.ndim - 2) + (reach, reach))
    near = sum(squares[:, start : start + channels] for start in range(size))
    return (values / (k + alpha * near).pow(beta)).to(x.dtype)
