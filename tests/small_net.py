"""A VGG-16 a sixteenth as wide: the same layers, names and code in a thousandth of the time."""

import numpy as np
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from han_core.nets.pooling import MaxPool2
from han_core.nets.vgg16 import VGG16

NARROW = 16


class SmallVGG16(VGG16):
    """As :class:`VGG16`, with He-initialised weights of the seed."""

    def __init__(
        self,
        *,
        classes: int = 2,
        in_channels: int = 3,
        fc_size: int = 8,
        dropout: tuple[float, float] = (0.5, 0.5),
        seed: int = 1,
    ) -> None:
        super().__init__(classes=classes, in_channels=in_channels, fc_size=fc_size, dropout=dropout)
        self.features = make_layers([layer if layer == "M" else layer // NARROW for layer in cfgs["D"]])
        for number, module in enumerate(self.features):
            if isinstance(module, nn.MaxPool2d):
                self.features[number] = MaxPool2()
        self.features[0] = nn.Conv2d(in_channels, 64 // NARROW, kernel_size=3, padding=1)
        self.classifier[0] = nn.Linear(512 // NARROW * 49, fc_size)
        random = np.random.default_rng(seed)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith("bias"):
                    value.zero_()
                else:
                    deviation = (2 / value[0].numel()) ** 0.5
                    value.copy_(torch.from_numpy(random.standard_normal(value.shape, np.float32) * deviation))
        self.to(memory_format=torch.channels_last)
