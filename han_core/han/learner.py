"""What the training loop asks of a model: its loss, its answers, and which of its weights belong together.

Symbols as in :mod:`han_core.han.model`: B clips, T frames, D channels, R regions, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from han_core.cubes.sparse import SparseCubes
from han_core.han.layers import Dropout


class Learnt(NamedTuple):
    """What a model makes of a batch that it learns from; both 0-dimensional."""

    loss: Tensor
    """Sum of the clips' losses: what is differentiated."""
    right: Tensor
    """How many of the clips are classified correctly."""


class Answer(NamedTuple):
    """What a model says of a batch; both float32."""

    probabilities: Tensor
    """(B, C); each clip's sum to 1."""
    details: Tensor
    """(B, ..): what else it says of each clip."""


class Learner(nn.Module, ABC):
    """A model that :func:`han_core.han.training.train` can fit.

    A clip's loss must depend on no other clip of its batch, or the batch could not be shared among processes.

    Attributes:
        dropout: the only source of chance in :meth:`learn`.
        mean, deviation: (streams, D) buffers, with which the model standardises each channel of its input.
    """

    dropout: Dropout
    mean: Tensor
    deviation: Tensor

    def standardize(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the statistics of the training clips, (streams, D) each. A channel that never varies keeps scale 1."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    @abstractmethod
    def learn(self, features: Mapping[str, Tensor | SparseCubes], labels: Tensor) -> Learnt:
        """The loss of a batch.

        Args:
            features: for each stream (B, T, D, R).
            labels: (B,) int64.
        """

    @abstractmethod
    def answer(self, features: Mapping[str, Tensor | SparseCubes]) -> Answer:
        """The class probabilities of a batch, whose ``features`` are for each stream (B, T, D, R)."""

    def attention_parameters(self) -> Sequence[nn.Parameter]:
        """The weights that make its attention maps, which may have a learning rate of their own; by default none."""
        return []

    def parts(self) -> Sequence[Sequence[nn.Parameter]]:
        """The weights of each part of the model that learns by itself. A gradient is clipped by the norm of its part,
        so that parts trained together end as they would alone. By default the model is one."""
        return [list(self.parameters())]
