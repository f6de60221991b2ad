"""The features of a set of clips, as training asks for them, and such a set in memory.

Shapes: N clips, T frames, D channels, R regions. Features without a place (fully connected layers, or cubes averaged
over their regions) have R = 1 and are dense; cubes are :class:`han_core.cubes.sparse.SparseCubes`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from han_core.cubes.sparse import SparseCubes

Values = Tensor | SparseCubes
"""The features of one stream for a batch: (B, T, D, R)."""


PLAIN = ""
"""Name of the view of a clip that is there always."""


class Features(Protocol):
    """What training needs of a set of clips, wherever their numbers are."""

    labels: Tensor
    """(N,) int64."""
    views: tuple[str, ...]
    """Names of the V views of each clip, the plain one first; view v of clip n has number v N + n."""

    def batch(self, indices: Sequence[int]) -> dict[str, Values]:
        """{stream: (len(indices), T, D, R)}."""
        ...


class MemoryFeatures:
    """Features in memory, or on a GPU: {stream: (N, T, D, R)} and labels (N,).

    Of V views of each clip the arrays hold V N, as :class:`CubeStore` numbers them.
    """

    def __init__(self, arrays: Mapping[str, Values], labels: Tensor, views: Sequence[str] = (PLAIN,)) -> None:
        self.arrays = dict(arrays)
        self.labels = labels
        self.views = tuple(views)

    def batch(self, indices: Sequence[int]) -> dict[str, Values]:
        """{stream: (len(indices), T, D, R)}; sparse cubes are not copied."""
        index = torch.as_tensor(indices)
        return {
            stream: values.select(index) if isinstance(values, SparseCubes) else values[index.to(values.device)]
            for stream, values in self.arrays.items()
        }

    def subset(self, indices: Sequence[int]) -> "MemoryFeatures":
        """The features of some of the clips, in the order given; sparse cubes are not copied."""
        numbers = [view * len(self.labels) + index for view in range(len(self.views)) for index in indices]
        return MemoryFeatures(self.batch(numbers), self.labels[torch.as_tensor(indices)], self.views)

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return next(iter(self.arrays.values())).device

    def with_across(self) -> "MemoryFeatures":
        """The same with transposed copies of sparse cubes, which make the gradient of glimpses faster on a GPU."""
        arrays = {s: v.with_across() if isinstance(v, SparseCubes) else v for s, v in self.arrays.items()}
        return MemoryFeatures(arrays, self.labels, self.views)

    def to(self, device: torch.device) -> "MemoryFeatures":
        """The same on another device. Labels stay where they are."""
        arrays = {stream: values.to(device) for stream, values in self.arrays.items()}
        return MemoryFeatures(arrays, self.labels, self.views)


def labels_of(features: Features, numbers: Sequence[int] | Tensor) -> Tensor:
    """(len(numbers),) int64: the classes of clips by number, whichever view of each it is."""
    return features.labels[torch.as_tensor(numbers, device=features.labels.device) % len(features.labels)]
