"""The frames of a clip, one after the other, beside the same with attention maps over them."""

from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np

from han_core.figures.attention import boxed, label, overlay


def attention_frames(
    frames: Iterable[tuple[int, np.ndarray]],
    maps: Mapping[str, np.ndarray],
    taken: np.ndarray,
    *,
    boxes: np.ndarray | None = None,
    side: int = 192,
) -> Iterator[np.ndarray]:
    """Pictures to be played: the frame, and to its right the frame under the map of each model.

    Every frame shows the maps of the nearest of the frames that the models looked at.

    Args:
        frames: number of the frame in its clip, and the frame (H, W, 3) uint8 RGB.
        maps: name -> (T, R) attention, R a square number; the name is written into the picture.
        taken: (T,) numbers of the frames that the maps lie over.
        boxes: (N, 4) x, y, width, height of the actor in pixels of each of the clip's frames, drawn as thin white
            frames beside the maps; None draws none.
        side: height of a picture in pixels; an even number.

    Yields:
        (side, (1 + models) * width, 3) uint8 RGB, the width even.
    """
    for number, frame in frames:
        width = 2 * max(1, round(side * frame.shape[1] / frame.shape[0] / 2))
        small = cv2.resize(frame, (width, side), interpolation=cv2.INTER_AREA)
        nearest = int(np.abs(taken - number).argmin())
        scale = np.array([width / frame.shape[1], side / frame.shape[0]] * 2)
        row = [boxed(small.copy(), None if boxes is None else boxes[number] * scale)]
        for name, weights in maps.items():
            row.append(overlay(small, weights[nearest]))
            label(row[-1], name)
        yield np.concatenate(row, axis=1)
