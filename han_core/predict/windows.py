"""Labels of a video: of the whole clip, or of windows that slide over a long one."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from han_core.nets.sampling import sample_frames
from han_core.predict.models import Recogniser
from han_core.predict.streaming import FeatureMaker, FrameBuffer
from han_core.video.damage import Damage

LONG = 2
"""A video longer than so many times the clips that the model learnt from is looked at in windows."""


@dataclass(frozen=True)
class Window:
    """What the model says of T frames of a video."""

    frames: np.ndarray
    """(T,) int: index of each of the T frames."""
    probabilities: np.ndarray
    """(C,) float32."""
    running: np.ndarray | None
    """(T, C) float32: the same after each of the T frames; None for windows that slide."""
    maps: np.ndarray
    """(T, R) float16 attention."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one label."""

    start: int
    """First frame."""
    end: int
    """First frame after it."""
    label: int
    probability: float
    """Mean over the frames."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of a video."""

    count: int
    """Frames of the video."""
    windows: tuple[Window, ...]
    times: Sequence[float] = ()
    """(count,) seconds at which each frame is shown; empty where nobody asked."""
    damage: Damage = field(default_factory=Damage)
    """Of the video."""

    @property
    def probabilities(self) -> np.ndarray:
        """(C,) mean over the windows."""
        return np.mean([window.probabilities for window in self.windows], axis=0)

    def starts(self) -> np.ndarray:
        """(W,) the first frame that each window answers for: each does for those nearest to its middle."""
        middles = np.array([(window.frames[0] + window.frames[-1]) / 2 for window in self.windows])
        return np.concatenate([[0], np.ceil((middles[:-1] + middles[1:]) / 2)]).astype(int)

    def timeline(self) -> list[Segment]:
        """The labels over time; neighbouring windows of one label make one segment."""
        starts = self.starts()
        ends = [*starts[1:].tolist(), self.count]
        segments: list[Segment] = []
        for window, start, end in zip(self.windows, starts.tolist(), ends, strict=True):
            label = int(window.probabilities.argmax())
            chance = float(window.probabilities[label])
            if segments and segments[-1].label == label:
                last = segments.pop()
                frames = last.end - last.start
                chance = (last.probability * frames + chance * (end - start)) / (end - last.start)
                start = last.start
            segments.append(Segment(start, end, label, chance))
        return segments


def predict_video(
    video: Path,
    recogniser: Recogniser,
    *,
    window: int | None = None,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Prediction:
    """Label a video.

    One of at most ``LONG`` times the usual length is one clip, its T frames equally spaced, exactly as in the pipeline.
    A longer one is sampled at a fixed step; each T samples in a row are a window, and a new window starts every T / 2.

    Args:
        video: any file that FFmpeg decodes.
        recogniser: the model and its nets.
        window: usual length of a clip in frames; None is the median of those that the model learnt from.
        on_frames: called with the number of frames done, now and then.

    Raises:
        VideoError: the video cannot be decoded.
        ClipError: it has one frame and flow is needed.
    """
    recipe = recogniser.recipe
    usual = max(window or recipe.clip_frames, 2)
    frames = FrameBuffer(video, recipe)
    maker = FeatureMaker(frames, recogniser.nets, recipe, recogniser.trained.source)
    if frames.read_to(LONG * usual):
        windows = tuple(_slide(frames, maker, recogniser, usual, on_frames))
    else:
        taken, order = np.unique(sample_frames(frames.read, recipe.frames), return_inverse=True)
        made = maker.make(taken.tolist(), frames.read)
        values = {stream: values[order] for stream, values in made.items()}
        windows = (_look(recogniser, taken[order], values, running=True),)
        on_frames(frames.read)
    return Prediction(frames.read, windows, tuple(frames.times), frames.damage)


def _slide(
    frames: FrameBuffer,
    maker: FeatureMaker,
    recogniser: Recogniser,
    usual: int,
    on_frames: Callable[[int], None],
) -> Iterator[Window]:
    recipe = recogniser.recipe
    length = recipe.frames
    step = max(1, round((usual - 1) / max(length - 1, 1)))
    hop = max(1, length // 2)
    kept: deque[tuple[int, dict[str, np.ndarray]]] = deque(maxlen=length)
    next_window = length  # samples after which the next window is due
    samples = done = 0
    last = -1  # sample at which the last window ended
    for positions, count in _chunks(frames, maker.reach, step, recipe.batch):
        made = maker.make(positions, count)
        for n, position in enumerate(positions):
            kept.append((position, {stream: values[n] for stream, values in made.items()}))
            samples += 1
            if samples == next_window:
                yield _window(recogniser, kept)
                last, next_window = samples, next_window + hop
        maker.forget_before(positions[-1] + step)
        on_frames(positions[-1] + 1 - done)
        done = positions[-1] + 1
    if last != samples:  # the end of the video
        yield _window(recogniser, kept)
    on_frames(frames.read - done)


def _chunks(frames: FrameBuffer, reach: int, step: int, size: int) -> Iterator[tuple[list[int], int | None]]:
    """Sampled frame indices, as many at once as a net takes, each with the length of the video once it is known."""
    position = 0
    while True:
        chunk: list[int] = []
        while len(chunk) < size and frames.read_to(position):
            chunk.append(position)
            position += step
        if not chunk:
            return
        frames.read_to(chunk[-1] + reach)
        yield chunk, frames.read if frames.ended else None


def _window(recogniser: Recogniser, kept: Sequence[tuple[int, dict[str, np.ndarray]]]) -> Window:
    streams = kept[0][1]
    values = {stream: np.stack([features[stream] for _, features in kept]) for stream in streams}
    return _look(recogniser, np.array([position for position, _ in kept]), values)


@torch.no_grad()
def _look(
    recogniser: Recogniser, frames: np.ndarray, values: dict[str, np.ndarray], *, running: bool = False
) -> Window:
    """Run the model on T frames; for the running probabilities also on the first 1, 2, .. of them."""
    model, device = recogniser.trained.model, recogniser.device
    features: dict[str, Tensor] = {}
    for stream, array in values.items():
        flat = array.reshape(1, *array.shape[:2], -1)
        if model.config.attention == "uniform":  # as CubeStore averages
            flat = flat.mean(axis=3, keepdims=True, dtype=np.float32)
        features[stream] = torch.from_numpy(flat).to(device)
    lengths = None
    if running:
        lengths = torch.arange(1, len(frames) + 1, device=device)
        features = {stream: cube.expand(len(frames), -1, -1, -1) for stream, cube in features.items()}
    output = model(features, lengths)
    chances = torch.softmax(output.logits.float(), dim=1).cpu().numpy()
    maps = output.attention[-1].to(torch.float16).cpu().numpy()
    return Window(frames, chances[-1], chances if running else None, maps)
