"""A random part of things that come in a stream, each of which is as likely as any other to be in it."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Draw(Generic[T]):
    """Keeps ``most`` of the items that are added, in their order; 0: all.

    Each item gets a random number when it comes, and the lowest numbers win. What is drawn depends on the seed and the
    number of items alone, not on the portions in which they come. In memory are at most twice ``most``.

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
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._select, self._join = select, join
        self._parts: list[T] = []
        self._keys: list[np.ndarray] = []
        self._held = 0
        self._limit = np.inf  # no item of a higher number can be among those that win

    def wanted(self, count: int) -> np.ndarray:
        """Announce so many further items; returns the indices of those that are to be given to :meth:`add`."""
        keys = self._random.random(count)
        index = np.flatnonzero(keys < self._limit)
        self._keys.append(keys[index])
        return index

    def add(self, items: T) -> None:
        """The items that were wanted last, and no others."""
        self._parts.append(items)
        self._held += len(self._keys[-1])
        if self.most and self._held >= 2 * self.most:
            self._thin_out()

    def items(self) -> T | None:
        """What was drawn, in the order in which it came; None if nothing ever did."""
        if self.most and self._held > self.most:
            self._thin_out()
        return self._join(self._parts) if self._parts else None

    def _thin_out(self) -> None:
        keys = np.concatenate(self._keys)
        winners = np.sort(np.argsort(keys, kind="stable")[: self.most])
        self._parts, self._keys = [self._select(self._join(self._parts), winners)], [keys[winners]]
        self._held, self._limit = len(winners), float(self._keys[0].max())
