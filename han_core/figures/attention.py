"""Pictures of what a model looked at (the paper's figure 4)."""

from collections.abc import Mapping

import cv2
import numpy as np

CIRCLED = 2.0
"""A map's strongest region is circled where it has at least so many times the weight that an even map gives it; below
that the place of the largest weight says next to nothing."""


def attention_strip(
    frames: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    flow: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    side: int = 128,
) -> np.ndarray:
    """Frames in a row; under it, for every model, the same frames with its attention maps over them; under those, flow.

    The strongest region of each map is circled, as :func:`overlay` does.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        maps: name -> (T, R) attention, R a square number (14 x 14 = 196); the name is written into the first picture.
        flow: (T, H', W', 3) uint8 pictures of the flow at the frames; None leaves the row out.
        boxes: (T, 4) x, y, width, height of the actor in pixels of the frames, drawn as thin white frames.
        side: height of one picture in pixels; the width follows the frames.

    Returns:
        (rows * side, T * width, 3) uint8 RGB.

    Raises:
        ValueError: the numbers of frames and maps, flow or boxes differ, or R is not a square.
    """
    width = max(1, round(side * frames.shape[2] / frames.shape[1]))
    for name, weights in {**maps, "flow": flow, "boxes": boxes}.items():
        if weights is not None and len(weights) != len(frames):
            raise ValueError(f"{len(frames)} frames and {len(weights)} of {name} do not fit together")
    small = [cv2.resize(frame, (width, side), interpolation=cv2.INTER_AREA) for frame in frames]
    scale = np.array([width / frames.shape[2], side / frames.shape[1]] * 2)
    plain = [boxed(picture.copy(), None if boxes is None else boxes[t] * scale) for t, picture in enumerate(small)]
    rows = {"": plain}
    for name, weights in maps.items():
        rows[name] = [overlay(picture, one) for picture, one in zip(small, weights, strict=True)]
    if flow is not None:
        rows["flow"] = [cv2.resize(picture, (width, side), interpolation=cv2.INTER_AREA) for picture in flow]
    for name, row in rows.items():
        if name:
            label(row[0], name)
    return np.concatenate([np.concatenate(row, axis=1) for row in rows.values()], axis=0)


def overlay(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One map over one picture: the more weight, the brighter and warmer; the strongest region circled, if it is
    :data:`CIRCLED` times as strong as it were in an even map.

    Args:
        picture: (H, W, 3) uint8 RGB.
        weights: (R,) attention, R a square number.

    Returns:
        (H, W, 3) uint8 RGB, another array.

    Raises:
        ValueError: R is not a square.
    """
    grid = round(len(weights) ** 0.5)
    if grid * grid != len(weights):
        raise ValueError(f"a map of {len(weights)} regions is not a square grid")
    weights = weights.reshape(grid, grid)
    height, width = picture.shape[:2]
    heat = cv2.resize(weights.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    # A map that hardly differs from the uniform one must look flat, so the scale starts at zero and spans at
    # least four times the uniform weight.
    heat = heat / max(float(weights.max()), 4 / weights.size)
    colour = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    mixed = cv2.addWeighted(picture, 0.5, colour, 0.5, 0)
    if 0 < CIRCLED * weights.mean() <= weights.max():
        row, column = np.unravel_index(int(weights.argmax()), weights.shape)
        centre = (int((column + 0.5) * width / grid), int((row + 0.5) * height / grid))
        cv2.circle(mixed, centre, max(3, height // 10), (0, 255, 0), max(1, height // 160), cv2.LINE_AA)
    return mixed


def boxed(picture: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """The same picture with a thin white frame where the box (x, y, width, height, in pixels) is; None draws none."""
    if box is not None:
        x, y, w, h = (round(float(v)) for v in box)
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), (255, 255, 255), 1)
    return picture


def label(picture: np.ndarray, text: str) -> None:
    """Write white on black into the upper left corner of an RGB picture."""
    size = picture.shape[0] / 320
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    cv2.rectangle(picture, (0, 0), (width + 4, height + base + 4), (0, 0, 0), -1)
    cv2.putText(picture, text, (2, height + 2), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
