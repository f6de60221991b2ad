"""The samples that a net is fine-tuned on: one random frame, or flow stack, of a clip, drawn, read and cut.

What is drawn for a sample (clip, frame, crop, flip) comes from the seed, the iteration and the sample's place in the
batch, and from nothing else: neither the number of threads that read, nor the number of processes that train, nor
an interruption changes it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from han_core.augment import Augmentation, View, centre_view, cut, draw_view
from han_core.imagefile import ImageReader
from han_core.two_stream import stack_fields

_AHEAD = 3  # micro batches that are read while one is computed


class TrainingClips(Protocol):
    """Where samples come from; :class:`FrameClips` and :class:`FlowClips` read clip files."""

    kind: Literal["frames", "flow"]
    labels: Sequence[int]

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(channels, height, width) uint8: the frame, or the stack around it, at ``moment`` in [0, 1) of a clip."""


@dataclass(frozen=True)
class FrameClips:
    """Single frames out of clip files of kind frames."""

    paths: Sequence[Path]
    labels: Sequence[int]
    kind: Literal["frames"] = "frames"
    reader: ImageReader = field(default_factory=ImageReader, repr=False)

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(3, height, width) uint8 RGB, a view of OpenCV's BGR."""
        return self.at(clip, int(moment * self.length(clip)))

    def length(self, clip: int) -> int:
        """Number of frames."""
        return self.reader.count(self.paths[clip], "frames")

    def at(self, clip: int, frame: int) -> np.ndarray:
        """As :meth:`read`, by the number of the frame."""
        (image,) = self.reader.decode(self.paths[clip], "frames", frame, frame, grey=False)
        return image[..., ::-1].transpose(2, 0, 1)


@dataclass(frozen=True)
class FlowClips:
    """Stacks of flow fields out of clip files of kind flow."""

    paths: Sequence[Path]
    labels: Sequence[int]
    stack: int
    kind: Literal["flow"] = "flow"
    reader: ImageReader = field(default_factory=ImageReader, repr=False)

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(2 * stack, height, width) uint8 levels, x and y interleaved."""
        return self.at(clip, int(moment * self.length(clip)))

    def length(self, clip: int) -> int:
        """Number of frames: one more than there are flow fields."""
        return self.reader.count(self.paths[clip], "x") + 1

    def at(self, clip: int, frame: int) -> np.ndarray:
        """As :meth:`read`, by the number of the frame in the middle."""
        path = self.paths[clip]
        (fields,) = stack_fields([frame], self.stack, self.reader.count(path, "x")).tolist()
        first, last = fields[0], fields[-1]
        x, y = (self.reader.decode(path, name, first, last, grey=True) for name in ("x", "y"))
        return np.stack([component[i - first] for i in fields for component in (x, y)])


@dataclass(frozen=True)
class Sample:
    """What one place of a batch holds."""

    pixels: np.ndarray
    """(channels, height, width) uint8: the crop, not yet rescaled."""
    view: View
    """What remains to be done: all of ``pixels``, perhaps mirrored."""
    label: int


def draw_sample(
    clips: TrainingClips, augmentation: Augmentation, batch: int, seed: int, iteration: int, place: int
) -> Sample:
    """Draw, read and cut the sample at ``place`` of the batch of an iteration (both counted from 0)."""
    clip = _clip_at(len(clips.labels), seed, iteration * batch + place)
    random = np.random.default_rng([seed, iteration, place])
    pixels = clips.read(clip, random.random())
    view = draw_view(random, *pixels.shape[1:], augmentation)
    return Sample(*cut(pixels, view), clips.labels[clip])


def centre_sample(clips: TrainingClips, augmentation: Augmentation, clip: int) -> Sample:
    """Read the middle of a clip and cut its centre: a square as high as the image, or all where crops are off."""
    pixels = clips.read(clip, 0.5)
    return Sample(*cut(pixels, centre_view(*pixels.shape[1:], augmentation)), clips.labels[clip])


def _clip_at(clips: int, seed: int, position: int) -> int:
    """Clip at a position of the endless row of shuffled passes over all clips."""
    epoch, place = divmod(position, clips)
    return int(_shuffled(clips, seed, epoch)[place])


@lru_cache(maxsize=4)
def _shuffled(clips: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(clips)


@dataclass(frozen=True)
class MicroBatch:
    """Some places of the batch of one iteration, computed at once."""

    iteration: int
    number: int
    """Of the micro batches of its iteration."""
    samples: tuple[Sample, ...] = ()


def micro_batches(batch: int, micro_batch: int) -> int:
    """Number of micro batches of an effective batch; the last one may be smaller."""
    return -(-batch // micro_batch)


def training_samples(
    pool: ThreadPoolExecutor,
    clips: TrainingClips,
    augmentation: Augmentation,
    *,
    iterations: Iterable[int],
    batch: int,
    micro_batch: int,
    seed: int,
    rank: int = 0,
    size: int = 1,
) -> Iterator[MicroBatch]:
    """This process's micro batches of all iterations in order, a few being read while one is used.

    Micro batch m of each iteration is that of the process whose ``rank`` is m modulo the number ``size`` of processes.
    """
    return _ahead(
        pool,
        (
            (MicroBatch(iteration, number), partial(draw_sample, clips, augmentation, batch, seed, iteration), places)
            for iteration in iterations
            for number, places in _dealt(batch, micro_batch, rank, size)
        ),
    )


def centre_samples(
    pool: ThreadPoolExecutor,
    clips: TrainingClips,
    augmentation: Augmentation,
    *,
    micro_batch: int,
    rank: int = 0,
    size: int = 1,
) -> Iterator[MicroBatch]:
    """The centre crop of the middle frame, or stack, of each clip, dealt to processes like training samples."""
    draw = partial(centre_sample, clips, augmentation)
    dealt = _dealt(len(clips.labels), micro_batch, rank, size)
    return _ahead(pool, ((MicroBatch(0, number), draw, places) for number, places in dealt))


def _dealt(count: int, micro_batch: int, rank: int, size: int) -> Iterator[tuple[int, range]]:
    """Numbers and places of those of ``count`` samples' micro batches that one of ``size`` processes computes."""
    for number in range(rank, micro_batches(count, micro_batch), size):
        yield number, range(number * micro_batch, min((number + 1) * micro_batch, count))


def _ahead(
    pool: ThreadPoolExecutor, wanted: Iterator[tuple[MicroBatch, Callable[[int], Sample], range]]
) -> Iterator[MicroBatch]:
    def submit(part: MicroBatch, draw: Callable[[int], Sample], places: range) -> tuple[MicroBatch, list[Future]]:
        return part, [pool.submit(draw, place) for place in places]

    waiting = deque(submit(*next_one) for next_one in islice(wanted, _AHEAD))
    try:
        while waiting:
            part, futures = waiting.popleft()
            yield replace(part, samples=tuple(future.result() for future in futures))
            waiting.extend(submit(*next_one) for next_one in islice(wanted, 1))
    finally:
        for _, futures in waiting:
            for future in futures:
                future.cancel()
