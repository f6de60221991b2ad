"""A flow field as a camera that stands still would have seen it."""

from typing import Literal

import numpy as np

from han_core.camera.motion import homography, mean_shift, warp_flow

Camera = Literal["mean", "homography"]
"""What the camera's motion is taken for: the mean of the field [16], or a homography fitted to it, as in improved dense
trajectories [19] and the warped flow of temporal segment networks."""


def steady_field(flow: np.ndarray, camera: Camera) -> np.ndarray:
    """A field without the camera's motion: (2, H, W) float32 pixels -> the same.

    Where no homography can be fitted, the field comes back as it is.

    Raises:
        ValueError: ``camera`` is not one of these.
    """
    if camera == "mean":
        return warp_flow(flow, mean_shift(flow))
    if camera == "homography":
        return warp_flow(flow, homography(flow))
    raise ValueError(f"camera must be mean or homography, not {camera!r}")
