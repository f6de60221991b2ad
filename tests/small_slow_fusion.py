"""Slow Fusion with few filters: the same layers, names and code in a fraction of the time."""

import numpy as np
import torch

from han_core.nets.slow_fusion.net import SlowFusion


class SmallSlowFusion(SlowFusion):
    """As :class:`SlowFusion`, with weights drawn by the seed as those of a random net are, but for fc8."""

    filters = (6, 8, 8, 8, 4)

    def __init__(
        self, *, classes: int = 2, fc_size: int = 8, dropout: tuple[float, float] = (0.5, 0.5), seed: int = 1
    ) -> None:
        super().__init__(classes=classes, fc_size=fc_size, dropout=dropout)
        random = np.random.default_rng(seed)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith("bias"):
                    value.zero_()
                else:
                    deviation = (0.5 / value[0].numel()) ** 0.5
                    value.copy_(torch.from_numpy(random.standard_normal(value.shape, np.float32) * deviation))
