"""A video with what the model saw in it: attention over the frames, the label, its running probability."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from han_core.figures.attention import overlay
from han_core.predict.windows import Prediction, Segment
from han_core.video.decode import probe, read_video
from han_core.video.encode import VideoWriter

_SHORT_SIDE = 240
"""Pixels: smaller frames are enlarged, or the text would not fit."""
_BAR = 36
"""Height in pixels of the bar under the frame."""
_LONGEST_SIDE = 16384
"""Pixels: libx264 takes no more."""


def annotate(
    video: Path,
    prediction: Prediction,
    classes: Sequence[str],
    target: Path,
    *,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> None:
    """Write an annotated copy of a video as ``.mp4`` that browsers play. One frame is in memory at a time.

    Every frame shows the map of the nearest of the frames that the model looked at. Of a clip the bar below shows the
    most likely label so far; of a long video the label of the window, and a timeline of all labels.

    Raises:
        EncodeError: the target cannot be written.
        VideoError: the video cannot be decoded (any more).
    """
    rate = probe(video).fps
    starts = prediction.starts()
    timeline = prediction.timeline()
    with read_video(video) as frames, VideoWriter(target, rate) as writer:
        for index, frame in enumerate(frames):
            window = prediction.windows[int(np.searchsorted(starts, index, side="right")) - 1]
            nearest = int(np.abs(window.frames - index).argmin())
            chances = window.probabilities
            if window.running is not None:
                seen = int(np.searchsorted(window.frames, index, side="right")) - 1
                chances = window.running[max(seen, 0)]
            label = int(chances.argmax())
            picture = overlay(_sized(frame), window.maps[nearest].astype(np.float32))
            shown = _with_bar(picture, classes[label], float(chances[label]))
            if len(prediction.windows) > 1:
                _draw_timeline(shown, timeline, prediction.count, index)
            writer.write(shown)
            on_frames(1)


def _sized(frame: np.ndarray) -> np.ndarray:
    """At least ``_SHORT_SIDE`` pixels per side, as far as the longer one, and the bar below, leave room."""
    height, width = frame.shape[:2]
    most = min(_LONGEST_SIDE / width, (_LONGEST_SIDE - _BAR) / height)
    scale = min(max(1.0, _SHORT_SIDE / min(height, width)), most)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return frame
    return cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA)


def _with_bar(picture: np.ndarray, label: str, chance: float) -> np.ndarray:
    """The picture over a black bar with the label and a beam as long as its probability."""
    width = picture.shape[1]
    bar = np.zeros((_BAR, width, 3), np.uint8)
    bar[: _BAR - 8, : round(chance * width)] = (24, 84, 160)
    if width <= 8:  # a strip, which has no room for a letter
        return np.concatenate([picture, bar], axis=0)
    # OpenCV's letters are ASCII; others would show as question marks anyway.
    text = f"{label.encode('ascii', 'replace').decode()}  {100 * chance:.0f} %"
    size = 0.55
    (needed, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    size = min(size, size * (width - 8) / needed)
    cv2.putText(bar, text, (4, _BAR - 16), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([picture, bar], axis=0)


def _draw_timeline(picture: np.ndarray, timeline: Sequence[Segment], count: int, index: int) -> None:
    """The labels of the whole video along the lower edge, one colour a label, a white mark at this frame."""
    height, width = picture.shape[:2]
    for segment in timeline:
        hue = np.array([[[(segment.label * 67) % 180, 190, 220]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
        picture[height - 8 :, segment.start * width // count : segment.end * width // count] = colour
    at = index * width // count
    picture[height - 8 :, max(0, at - 1) : at + 2] = 255
