"""Made-up clips of which the flow is known."""

import cv2
import numpy as np


def texture(height: int, width: int, seed: int = 0, smooth: float = 1.5) -> np.ndarray:
    """(height, width) uint8 of patches everywhere."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), smooth), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def constant(motion: tuple[float, float], height: int, width: int) -> np.ndarray:
    """(2, height, width) float32 flow, the same everywhere."""
    return np.broadcast_to(np.array(motion, np.float32)[:, None, None], (2, height, width)).copy()


def pan(count: int, height: int, width: int, motion: tuple[int, int] = (-2, -1)) -> tuple[list, list]:
    """A camera that sees everything move by whole pixels, each at most 0: frames, and flow between them."""
    across, down = -motion[0], -motion[1]
    picture = texture(height + down * count, width + across * count)
    frames = [picture[t * down : t * down + height, t * across : t * across + width].copy() for t in range(count)]
    return frames, [constant(motion, height, width)] * (count - 1)


def pan_with_square(count: int, height: int, width: int, side: int = 40) -> tuple[list, list, list]:
    """The same with a square that moves by (4, 0) in the picture: frames, flow, and the square's left and top."""
    frames, fields = pan(count, height, width)
    square = texture(side, side, seed=7)
    places = [(20 + 4 * t, height // 3) for t in range(count)]
    fields = [field.copy() for field in fields]
    for t, (left, top) in enumerate(places):
        frames[t][top : top + side, left : left + side] = square
        if t < count - 1:
            fields[t][:, top : top + side, left : left + side] = constant((4, 0), side, side)
    return frames, fields, places


def wobbling(count: int, height: int, width: int, seed: int = 0) -> tuple[list, list]:
    """Frames of noise that changes, and flow that has nothing to do with them: a camera that pans, turns and zooms, and
    a third of the picture that moves otherwise, everywhere a little differently."""
    random = np.random.default_rng(seed)
    frames = [texture(height, width, seed=seed + t) for t in range(count)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    fields = []
    for _ in range(count - 1):
        camera = np.stack([0.01 * (x - width / 2) - 0.02 * y + 1.3, 0.02 * x + 0.01 * y - 1.1])
        smooth = [cv2.GaussianBlur(random.normal(size=(height, width)).astype(np.float32), (0, 0), 6) for _ in range(4)]
        own = np.stack(smooth[:2]) * 25 * (x > width * 2 / 3)
        fields.append((camera + own + np.stack(smooth[2:])).astype(np.float32))
    return frames, fields
