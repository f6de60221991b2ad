"""What is solved under Triton's interpreter: (parameters, tuning) by name, and single sweeps."""

from han_core.flow.tvl1.params import TVL1Params

STOPS = TVL1Params(scales=2, warps=2, epsilon=0.08, iterations=14, settle=2)
CASES = {
    # Pairs that stop after different iterations, in the middle of a sweep, on two levels, with iterations after the
    # last warp.
    "stops": (STOPS, {}),
    # Filtered twice in a warp, and not while it settles; a slot is used twice.
    "median": (TVL1Params(scales=1, warps=2, epsilon=0.001, iterations=33, median=3, settle=3), {"slots": 2}),
    # Filtered when it comes to the finer level.
    "median of two levels": (TVL1Params(scales=2, warps=1, epsilon=0, iterations=2, median=3, settle=0), {}),
}
SLOW_CASES = {
    "long": (TVL1Params(scales=2, warps=2, epsilon=0.03, iterations=40, settle=6), {"slots": 2}),
    # No early stop, and a number of iterations that sweeps do not divide.
    "fixed": (TVL1Params(scales=3, warps=1, epsilon=0, iterations=6, settle=0), {}),
    "median5": (TVL1Params(scales=2, warps=2, epsilon=0, iterations=3, median=5, settle=0), {"slots": 2}),
}
TINY = TVL1Params(scales=1, warps=1, epsilon=0.1, iterations=9, settle=0)
"""For the kernel ``sweep`` itself, which the interpreter takes a tenth of a second a row for."""

SWEEPS = ((5, 27, 3, 4, 64), (4, 131, 4, 4, 64), (7, 3, 2, 2, 4), (3, 58, 1, 4, 64), (4, 59, 6, 6, 64))
"""(height, width, iterations, iterations that a sweep could do, rows of a segment)."""
