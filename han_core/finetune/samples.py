"""The samples that a net is fine-tuned on: a random frame, flow stack or window of a clip, drawn, read and cut.

What is drawn for a sample (clip, frame, crop, flip) comes from the seed, the iteration and the sample's place in the
batch, and from nothing else: neither the number of threads that read, nor the number of processes that train, nor
an interruption changes it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice

import numpy as np

from han_core.finetune.augment import Views
from han_core.nets.clip_inputs import TrainingClips
from han_core.nets.crops import View, cut

_AHEAD = 3  # micro batches that are read while one is computed; more where they are so small that readers would wait


@dataclass(frozen=True)
class Sample:
    """What one place of a batch holds."""

    pixels: np.ndarray
    """(channels, height, width) uint8: the crop, not yet rescaled. All frames of a window are channels of one image,
    so that they share their crop."""
    view: View
    """What remains to be done: all of ``pixels``, perhaps mirrored."""
    label: int


def draw_sample(clips: TrainingClips, views: Views, batch: int, seed: int, iteration: int, place: int) -> Sample:
    """Draw, read and cut the sample at ``place`` of the batch of an iteration (both counted from 0)."""
    clip = _clip_at(len(clips.labels), seed, iteration * batch + place)
    random = np.random.default_rng([seed, iteration, place])
    pixels = clips.read(clip, random.random())
    view = views.draw(random, *pixels.shape[1:])
    return Sample(*cut(pixels, view), clips.labels[clip])


def centre_sample(clips: TrainingClips, views: Views, clip: int) -> Sample:
    """Read the middle of a clip and cut its centre."""
    pixels = clips.read(clip, 0.5)
    return Sample(*cut(pixels, views.centre(*pixels.shape[1:])), clips.labels[clip])


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
    views: Views,
    *,
    iterations: Iterable[int],
    batch: int,
    micro_batch: int,
    seed: int,
    rank: int = 0,
    size: int = 1,
    readers: int = 0,
) -> Iterator[MicroBatch]:
    """This process's micro batches of all iterations in order, a few being read while one is used: enough that each of
    so many ``readers`` has one sample in hand and one before it.

    Micro batch m of each iteration is that of the process whose ``rank`` is m modulo the number ``size`` of processes.
    """
    return _ahead(
        pool,
        _parts_ahead(readers, min(micro_batch, batch)),
        (
            (MicroBatch(iteration, number), partial(draw_sample, clips, views, batch, seed, iteration), places)
            for iteration in iterations
            for number, places in _dealt(batch, micro_batch, rank, size)
        ),
    )


def centre_samples(
    pool: ThreadPoolExecutor,
    clips: TrainingClips,
    views: Views,
    *,
    micro_batch: int,
    rank: int = 0,
    size: int = 1,
    readers: int = 0,
) -> Iterator[MicroBatch]:
    """The centre crop of the middle of each clip, dealt to processes like training samples."""
    draw = partial(centre_sample, clips, views)
    dealt = _dealt(len(clips.labels), micro_batch, rank, size)
    ahead = _parts_ahead(readers, micro_batch)
    return _ahead(pool, ahead, ((MicroBatch(0, number), draw, places) for number, places in dealt))


def _parts_ahead(readers: int, samples: int) -> int:
    """How many parts of so many samples are read ahead."""
    return max(_AHEAD, -(-2 * readers // samples))


def _dealt(count: int, micro_batch: int, rank: int, size: int) -> Iterator[tuple[int, range]]:
    """Numbers and places of those of ``count`` samples' micro batches that one of ``size`` processes computes."""
    for number in range(rank, micro_batches(count, micro_batch), size):
        yield number, range(number * micro_batch, min((number + 1) * micro_batch, count))


def _ahead(
    pool: ThreadPoolExecutor, ahead: int, wanted: Iterator[tuple[MicroBatch, Callable[[int], Sample], range]]
) -> Iterator[MicroBatch]:
    def submit(part: MicroBatch, draw: Callable[[int], Sample], places: range) -> tuple[MicroBatch, list[Future]]:
        return part, [pool.submit(draw, place) for place in places]

    waiting = deque(submit(*next_one) for next_one in islice(wanted, ahead))
    try:
        while waiting:
            part, futures = waiting.popleft()
            yield replace(part, samples=tuple(future.result() for future in futures))
            waiting.extend(submit(*next_one) for next_one in islice(wanted, 1))
    finally:
        for _, futures in waiting:
            for future in futures:
                future.cancel()
