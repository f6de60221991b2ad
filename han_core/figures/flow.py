"""Flow in colour."""

import numpy as np


def flow_picture(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Draw flow in colour: hue is direction, strength of colour is length (torchvision's ``flow_to_image``).

    Args:
        flow: (2, H, W) or (N, 2, H, W) pixels, x first.
        largest: Length in pixels drawn with full colour; longer flow is cut to it. None takes the longest vector of
            all that is given.

    Returns:
        (H, W, 3) or (N, H, W, 3) uint8 RGB.

    Raises:
        ValueError: wrong shape, values that are not finite, or ``largest`` not above 0.
    """
    import torch
    from torchvision.utils import flow_to_image

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
    scaled = flow / np.maximum(length, longest)
    # flow_to_image divides by the longest vector of what it is given; one extra pixel of length 1 keeps it from that.
    fields = scaled.reshape(-1, *scaled.shape[-3:])
    count, _, height, width = fields.shape
    anchored = np.zeros((count, 2, height + 1, width), np.float32)
    anchored[:, :, :height] = fields
    anchored[:, 0, height, 0] = 1
    image = flow_to_image(torch.from_numpy(anchored))[:, :, :height]
    return np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy()).reshape(*flow.shape[:-3], height, width, 3)
