"""Views of a clip: which of its frames are taken, and whether they are mirrored; more to learn from than one."""

from dataclasses import dataclass
from itertools import product
from typing import Self


@dataclass(frozen=True)
class ClipView:
    """One way to look at a clip."""

    thirds: int = 0
    """The T equally spaced frames are taken so many thirds of their distance later; what would lie beyond the end is
    the last frame."""
    mirrored: bool = False
    """Left to right; the x component of flow is negated."""

    @property
    def name(self) -> str:
        """Part of paths; "" of the plain view, by which clips are classified."""
        parts = [*(["mirrored"] if self.mirrored else []), *([f"shift{self.thirds}"] if self.thirds else [])]
        return "-".join(parts)

    @classmethod
    def of(cls, name: str) -> Self:
        """The view of this name.

        Raises:
            KeyError: there is none.
        """
        return {view.name: view for view in (cls(*both) for both in product(range(3), (False, True)))}[name]


PLAIN = ClipView()
FURTHER = tuple(ClipView(*both).name for both in product(range(3), (False, True)))[1:]
"""Names of all views but the plain one: shift1, shift2, mirrored, mirrored-shift1, mirrored-shift2."""
