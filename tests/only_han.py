"""Params for tests that are about HAN: without the rows of Table 2 that have stages of their own."""

from pipeline.params import SYSTEMS


def only_han(params: dict) -> dict:
    """Leave those rows out, in place; the two-stream CNN and the baselines stay as they are."""
    for group in SYSTEMS.values():
        params[group]["splits"] = []
    params["trajectories"]["source"] = []
    return params
