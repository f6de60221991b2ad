"""Which back end computes the flow of a video that is to be labelled."""

import functools
import logging

from han_core.flow.tvl1.solver import resolve_backend
from han_core.predict.models import PredictError

log = logging.getLogger(__name__)

TOLERANCE = "by at most 0.02 pixels in the median and 0.1 in a pair's mean"
"""How far the back ends' flow may differ: what the tests of :mod:`han_core.flow.tvl1` hold them to."""


@functools.lru_cache(maxsize=8)
def flow_backend(learnt_from: str) -> str:
    """The back end that made the flow a model learnt from, or where it cannot run here the one that can.

    A model from a machine with a GPU labels videos on one without. All back ends find the same flow within a tolerance
    below one level of the stored flow (0.16 pixels at a bound of 20), so probabilities move little. The exchange is
    told in one warning a process.

    Args:
        learnt_from: ``auto`` or the name of a back end, as the model's description has it.

    Raises:
        PredictError: no back end at all can run here.
    """
    try:
        return resolve_backend(learnt_from)
    except ValueError as error:
        try:
            chosen = resolve_backend("auto")
        except ValueError as none:
            raise PredictError(str(none)) from None
        log.warning(
            "flow is computed by back end %s, which differs %s from what the model learnt from (%s)",
            chosen,
            TOLERANCE,
            error,
        )
        return chosen
