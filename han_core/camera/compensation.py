"""What is taken out of flow before the temporal net looks at it, and its name in params and files."""

import re
from dataclasses import dataclass
from typing import Literal, Self

_NAME = re.compile(r"(?P<alone>none|mean|homography)|((?P<motion>mean|homography)-)?still(?P<still>[0-9]+(\.[0-9]+)?)")
_MOST = 50.0


@dataclass(frozen=True)
class Compensation:
    """The camera's motion, what is too little to be motion, or both. Each has one name, :meth:`of`."""

    motion: Literal["mean", "homography"] | None
    """What the camera's motion is taken for: the mean of the field [16], or a homography fitted to it, as in improved
    dense trajectories [19] and the warped flow of temporal segment networks. None: it stays."""
    still: float
    """Per cent of the frame's shorter side: shorter vectors are taken for no motion."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The one of a name: ``none``, ``mean``, ``homography``, ``still0.5`` (or another share), or two of these,
        ``homography-still0.5``.

        Raises:
            ValueError: there is none of this name.
        """
        found = _NAME.fullmatch(name)
        still = float(found["still"] or 0) if found else 0.0
        # One name for each, because fingerprints are made of it: no still0.50.
        if not found or (found["still"] and (not 0 < still <= _MOST or f"{still:g}" != found["still"])):
            raise ValueError(
                f"must be none, mean, homography, still with a share of the shorter side in per cent, as still0.5, or "
                f"two of these, as homography-still0.5, not {name!r}"
            )
        motion = found["alone"] or found["motion"]
        return cls(None if motion == "none" else motion, still)
