"""TV-L1 optical flow (Zach, Pock and Bischof 2007): one interface, several back ends with one result."""

from han_core.tvl1.params import TVL1Params, pyramid_sizes
from han_core.tvl1.solver import BACKENDS, resolve_backend, tvl1_flow

__all__ = ["BACKENDS", "TVL1Params", "pyramid_sizes", "resolve_backend", "tvl1_flow"]
