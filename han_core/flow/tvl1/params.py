"""The parameters of TV-L1 optical flow, checked where they are made."""

import math
from dataclasses import dataclass, fields, replace

MEDIAN_PERIOD = 30
"""Iterations between two applications of the median filter (OpenCV's default number of inner iterations)."""

COARSEST_SIDE = 16
"""Pixels: a level of the pyramid with a shorter side is not used (OpenCV's rule)."""


_MAY_BE_ZERO = ("epsilon", "settle")


@dataclass(frozen=True)
class TVL1Params:
    """Parameters under OpenCV's names, with the defaults of OpenCV's CUDA class.

    Raises:
        ValueError: a value is of the wrong type or outside its range; the message names every such value.
    """

    tau: float = 0.25
    """Time step of the dual variable's update; the scheme is known to converge up to 0.25."""
    lambda_: float = 0.15
    """Weight of the data term for grey values 0..255. Smaller gives smoother flow."""
    theta: float = 0.3
    """Tightness: weight of (u - v)^2 / (2 theta), which couples the smooth field u to the matching field v."""
    scales: int = 5
    """Levels of the image pyramid at most; levels with a side under 16 pixels are left out."""
    scale_step: float = 0.8
    """Size of a level relative to the next finer one, between 0 and 1."""
    warps: int = 5
    """Linearisations of the second image a level."""
    epsilon: float = 0.01
    """Pixels: a warp stops after the first iteration whose root mean squared update is at most this."""
    iterations: int = 300
    """Iterations a warp at most."""
    median: int = 1
    """Side of the median filter put on the flow at the start of every 30 iterations: 3 or 5; 1 is none."""
    settle: int = 10
    """Further iterations on the finest level when its last warp has met the stopping rule, without median filter;
    OpenCV has none (0). They lower the energy and the end-point error and move the flow by hundredths of a pixel."""

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type is int
            kind = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind):
                problems.append(f"{field.name} must be {'a whole number' if whole else 'a number'}, not {value!r}")
            elif not math.isfinite(value) or value < 0 or (value == 0 and field.name not in _MAY_BE_ZERO):
                problems.append(f"{field.name} must be a finite number above 0, not {value!r}")
            elif field.name == "scale_step" and value >= 1:
                problems.append(f"scale_step must be below 1, not {value!r}")
            elif field.name == "median" and value not in (1, 3, 5):
                problems.append(f"median must be 1 (none), 3 or 5, not {value!r}")
        if problems:
            raise ValueError("TV-L1 parameters: " + "; ".join(problems))

    def settling(self) -> "TVL1Params":
        """The parameters of the iterations after the last warp."""
        return replace(self, epsilon=0, iterations=self.settle, median=1)


def pyramid_sizes(height: int, width: int, params: TVL1Params) -> list[tuple[int, int]]:
    """Sizes (height, width) of the pyramid's levels, finest first; at least the image itself.

    Each level is the one before times ``scale_step``, rounded to the nearest even-ended whole number as OpenCV does;
    the first level with a side under 16 pixels ends the pyramid and is left out.
    """
    sizes = [(height, width)]
    while len(sizes) < params.scales:
        height, width = round(height * params.scale_step), round(width * params.scale_step)
        if min(height, width) < COARSEST_SIDE:
            break
        sizes.append((height, width))
    return sizes
