"""Flow in colour."""

import numpy as np

_HUES = (15, 6, 4, 11, 13, 6)
"""Steps of the colour wheel from red to yellow, green, cyan, blue, magenta and back (Baker et al. 2011, "A Database and
Evaluation Methodology for Optical Flow")."""


def flow_picture(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Draw flow in colour: hue is direction, strength of colour is length (the colours of Baker
    et al., as torchvision's ``flow_to_image``, which takes seconds to import).

    Args:
        flow: (2, H, W) or (N, 2, H, W) pixels, x first.
        largest: Length in pixels drawn with full colour; longer flow is cut to it. None takes the longest vector of
            all that is given.

    Returns:
        (H, W, 3) or (N, H, W, 3) uint8 RGB.

    Raises:
        ValueError: wrong shape, values that are not finite, or ``largest`` not above 0.
    """
    flow = np.asarray(flow, np.float32)
    if flow.ndim not in (3, 4) or flow.shape[-3] != 2:
        raise ValueError(f"flow must have the shape (2, H, W) or (N, 2, H, W), not {flow.shape}")
    if not np.isfinite(flow).all():
        raise ValueError("flow must be finite to be drawn")
    if largest is not None and not largest > 0:
        raise ValueError(f"largest must be above 0, not {largest}")
    length = np.sqrt((flow**2).sum(-3, keepdims=True))
    longest = float(length.max(initial=0.0)) if largest is None else largest
    if longest == 0:
        return np.full((*flow.shape[:-3], *flow.shape[-2:], 3), 255, np.uint8)
    x, y = np.moveaxis(flow / np.maximum(length, longest), -3, 0)
    wheel = _wheel()
    place = (np.arctan2(-y, -x) / np.float32(np.pi) + 1) / 2 * (len(wheel) - 1)
    before = np.floor(place).astype(np.intp)
    share = (place - before)[..., None]
    colour = (1 - share) * wheel[before] + share * wheel[(before + 1) % len(wheel)]
    faded = 1 - np.sqrt(x**2 + y**2)[..., None] * (1 - colour)
    return np.floor(np.clip(255 * faded, 0, 255)).astype(np.uint8)


def _wheel() -> np.ndarray:
    """The colours of all directions, (55, 3) float32 of 0..1."""
    parts = []
    for number, steps in enumerate(_HUES):
        rising = np.floor(255 * np.arange(steps, dtype=np.float32) / steps)
        part = np.zeros((steps, 3), np.float32)
        # One of the three is full; of the two beside it one comes or goes.
        if number % 2 == 0:
            part[:, number // 2], part[:, (number // 2 + 1) % 3] = 255, rising
        else:
            part[:, (number // 2 + 1) % 3], part[:, number // 2] = 255, 255 - rising
        parts.append(part)
    return np.concatenate(parts) / np.float32(255)
