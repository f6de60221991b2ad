"""Batches of features on their way to where they are used: the next one is read while the last one is worked on.

On a GPU the host runs ahead of the work that it has launched. A thread reads, or gathers, the next batch into pinned
memory and a stream of its own copies it, so that neither the host nor the GPU waits for a copy. Time spent waiting for
data is the time during which the GPU has nothing left to do and the batch is not there yet; that the GPU still works is
no waiting for data.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import fields, is_dataclass
from typing import Self

import torch
from torch import Tensor

from han_core.cubes.features import Features, MemoryFeatures, Values, labels_of

AHEAD = 2
"""Batches whose work may be launched and not done yet; more would fill the GPU's memory with batches."""
LOOK = 0.001
"""Seconds between two looks at whether the GPU has become idle."""

Batch = tuple[dict[str, Values], Tensor]
"""{stream: (B, T, D, R)} and labels (B,)."""


class Prefetched(Iterator[Batch]):
    """The features and labels of each batch, on ``device``, in order.

    Attributes:
        waited: seconds for which there was neither a batch nor work.

    Args:
        features: any; what lies in the memory of the host is not copied for a CPU.
        batches: the clips of each batch, by number.
        work: of a device that works by itself; asked for when a batch is not there yet.
    """

    def __init__(
        self,
        features: Features,
        batches: Sequence[Sequence[int]],
        device: torch.device | None = None,
        *,
        work: "Work | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waited = 0.0
        self._features = features
        self._device = device or torch.device("cpu")
        self._gpu = self._device.type == "cuda"
        here = isinstance(features, MemoryFeatures) and (not self._gpu or features.device.type == "cuda")
        self._at_once = here and self._device.type in ("cpu", "cuda")  # nothing to read or copy
        self._batches = iter(batches)
        self._work = work or (CudaWork(self._device) if self._gpu else Work())
        self._clock = clock
        self._pool: ThreadPoolExecutor | None = None
        self._coming: Future | None = None
        if not self._at_once:
            self._copies = torch.cuda.Stream(self._device) if self._gpu else None
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
            self._read_on()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._at_once:
            values, labels = self._batch(next(self._batches))
            return values, labels.to(self._device)
        if self._coming is None:
            raise StopIteration
        self._work.keep_to(AHEAD)
        coming = self._coming
        if not coming.done():
            self._wait_for(coming)
        (values, labels), copied = coming.result()
        self._read_on()
        if copied is not None:
            _use_from_now(values, labels, copied)
        return values, labels

    def close(self) -> None:
        """End the thread; what it reads is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wait_for(self, coming: Future) -> None:
        self._work.mark()
        while self._work.going_on() and not coming.done():
            wait([coming], timeout=LOOK)
        started = self._clock()
        wait([coming])
        self.waited += self._clock() - started

    def _read_on(self) -> None:
        """Have the next batch read, if there is one."""
        indices = next(self._batches, None)
        self._coming = None if indices is None else self._pool.submit(self._read, indices)

    def _read(self, indices: Sequence[int]) -> "tuple[Batch, torch.cuda.Event | None]":
        values, labels = self._batch(indices)
        if self._device.type == "cpu":
            return (values, labels), None
        if not self._gpu:
            return ({stream: cube.to(self._device) for stream, cube in values.items()}, labels.to(self._device)), None
        with torch.cuda.stream(self._copies):
            moved = {stream: _to_gpu(cube, self._device) for stream, cube in values.items()}
            return (moved, _to_gpu(labels, self._device)), self._copies.record_event()

    def _batch(self, indices: Sequence[int]) -> Batch:
        return self._features.batch(indices), labels_of(self._features, indices)


class Work:
    """What the device has still to do; of one on which the host waits for every result: nothing."""

    def mark(self) -> None:
        """Note all that has been launched so far."""

    def going_on(self) -> bool:
        """Whether some of what was noted last is not done."""
        return False

    def keep_to(self, batches: int) -> None:
        """Wait until no more than so many calls of this lie between what is launched and what is done."""


class CudaWork(Work):
    """What a GPU has still to do in the current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marked: torch.cuda.Event | None = None
        self._launched: deque[torch.cuda.Event] = deque()

    def mark(self) -> None:
        self._marked = torch.cuda.current_stream(self._device).record_event()

    def going_on(self) -> bool:
        return self._marked is not None and not self._marked.query()

    def keep_to(self, batches: int) -> None:
        self._launched.append(torch.cuda.current_stream(self._device).record_event())
        if len(self._launched) > batches:
            self._launched.popleft().synchronize()


def _to_gpu(values: Values, device: torch.device) -> Values:
    if isinstance(values, Tensor) and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _use_from_now(values: dict[str, Values], labels: Tensor, copied: "torch.cuda.Event") -> None:
    """Let the current stream wait for the copy, and the memory of the batch wait for the current stream."""
    stream = torch.cuda.current_stream(labels.device)
    stream.wait_event(copied)
    for tensor in (labels, *(tensor for cube in values.values() for tensor in _tensors(cube))):
        tensor.record_stream(stream)


def _tensors(values: Values) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif is_dataclass(values):
        yield from (v for f in fields(values) if isinstance(v := getattr(values, f.name), Tensor))
