"""A flow field as a camera that stands still would have seen it."""

import numpy as np

from han_core.camera.compensation import Compensation
from han_core.camera.motion import homography, mean_shift, warp_flow


def steady_field(flow: np.ndarray, camera: str) -> np.ndarray:
    """A field without what is not the scene's own motion: (2, H, W) float32 pixels -> the same.

    First the camera's motion goes; where no homography can be fitted, it stays. Then a vector v becomes
    v (1 - s^2 / |v|^2), or nothing where it is no longer than s, the ``still`` share of the shorter side. For flow of
    what stands still before a moving camera is a tenth of a pixel off everywhere, and no better motion of the camera
    mends that; improved dense trajectories drop it as well, with all that moves by less than a pixel (Wang & Schmid
    2013, section 3.1). This form of a threshold (the non-negative garrote, Breiman 1995) has no step at s and leaves
    long vectors alone.

    Raises:
        ValueError: ``camera`` is no name of a :class:`Compensation`.
    """
    taken_out = Compensation.of(camera)
    if taken_out.motion is not None:
        flow = warp_flow(flow, mean_shift(flow) if taken_out.motion == "mean" else homography(flow))
    if not taken_out.still:
        return flow
    least = np.float32((taken_out.still / 100 * min(flow.shape[1:])) ** 2)
    return flow * (1 - least / np.maximum(np.square(flow).sum(axis=0), least))
