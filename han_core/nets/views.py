"""Views of a clip: which of its frames are taken, whether they are mirrored, and how the camera shook; more to learn
from than one."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class ClipView:
    """One way to look at a clip."""

    thirds: int = 0
    """The T equally spaced frames are taken so many thirds of their distance later; what would lie beyond the end is
    the last frame."""
    mirrored: bool = False
    """Left to right; the x component of flow is negated."""
    shaken: int = 0
    """Filmed again by a hand that is so unsteady: per cent of the shorter side (:mod:`han_core.camera.shake`)."""

    @property
    def name(self) -> str:
        """Part of paths; "" of the plain view, by which clips are classified."""
        parts = (
            "mirrored" * self.mirrored,
            f"shift{self.thirds}" * bool(self.thirds),
            f"shaken{self.shaken}" * bool(self.shaken),
        )
        return "-".join(part for part in parts if part)

    @property
    def is_sampling(self) -> bool:
        """Whether it is the clip as it was filmed, and at most other frames of it."""
        return not self.mirrored and not self.shaken

    @classmethod
    def of(cls, name: str) -> Self:
        """The view of this name.

        Raises:
            KeyError: there is none.
        """
        return {view.name: view for view in cls._all()}[name]

    @classmethod
    def _all(cls) -> list[Self]:
        return [
            cls(thirds, mirrored, shaken) for shaken in range(3) for thirds in range(3) for mirrored in (False, True)
        ]


PLAIN = ClipView()
FURTHER = tuple(view.name for view in ClipView._all())[1:]
"""Names of all views but the plain one: mirrored, shift1, .. mirrored-shift2-shaken2."""
