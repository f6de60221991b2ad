"""A random part of things that come in a stream, each of which is as likely as any other to be in it."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Draw(Generic[T]):
    """Keeps ``most`` of the items that are added, in their order; 0: all.

    Each item has a random number, and the lowest numbers win. So who makes items can draw the number first, and leave
    out the work on those that can no longer win. What is drawn depends on the seed and the numbers alone, not on the
    portions in which items come. In memory are at most 1.25 ``most`` and one portion.

    Args:
        most: how many are kept at most.
        seed: anything that NumPy's ``SeedSequence`` takes.
        select: (items, index array) -> items.
        join: a list of items -> items.
    """

    def __init__(
        self,
        most: int,
        seed: int | list[int],
        select: Callable[[T, np.ndarray], T],
        join: Callable[[list[T]], T],
    ) -> None:
        self.most = most
        self.limit = np.inf
        """Items of this number or a higher one can no longer win; falls with time."""
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._select, self._join = select, join
        self._parts: list[T] = []
        self._numbers: list[np.ndarray] = []
        self._held = 0

    def numbers(self, count: int) -> np.ndarray:
        """(count,) float64: numbers of the next items."""
        return self._random.random(count)

    def add(self, items: T, numbers: np.ndarray) -> None:
        """Add items with their numbers, all below the limit."""
        self._parts.append(items)
        self._numbers.append(numbers)
        self._held += len(numbers)
        if self.most and self._held >= self.most + self.most // 4 + 1:
            self._thin_out()

    def items(self) -> T | None:
        """What was drawn, in the order in which it came; None if nothing ever did."""
        if self.most and self._held > self.most:
            self._thin_out()
        return self._join(self._parts) if self._parts else None

    def _thin_out(self) -> None:
        numbers = np.concatenate(self._numbers)
        winners = np.sort(np.argsort(numbers, kind="stable")[: self.most])
        self._parts, self._numbers = [self._select(self._join(self._parts), winners)], [numbers[winners]]
        self._held, self.limit = len(winners), float(numbers[winners].max())
