"""From samples to batches on the device, made while the batch before is computed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from han_core.devices import Precision
from han_core.finetune.samples import MicroBatch
from han_core.nets.crops import View, apply_views
from han_core.nets.preprocess import Convention

_AHEAD = 2  # batches on a GPU that wait for their turn

Prepare = Callable[[Sequence[np.ndarray], Sequence[View], torch.device], Tensor]
"""Makes a batch as the net reads it, on the device, of images and what is to be seen of them."""


@dataclass(frozen=True)
class StillImages:
    """Prepares frames, or flow stacks, for a VGG-16: (n, channels, 224, 224) float32 in the scale of its weights."""

    kind: Literal["frames", "flow"]
    convention: Convention
    precision: Precision = "float32"
    """Of the net."""

    def __call__(self, images: Sequence[np.ndarray], views: Sequence[View], device: torch.device) -> Tensor:
        """The batch of these images."""
        how = {"kind": self.kind, "convention": self.convention, "precision": self.precision}
        return apply_views(images, views, **how, device=device)


@dataclass(frozen=True)
class Batch:
    """A micro batch as the net reads it."""

    iteration: int
    number: int
    images: Tensor
    """(n, ..) float32 in the net's scale."""
    labels: Tensor
    """(n,) int64."""


def batches(parts: Iterator[MicroBatch], prepare: Prepare, device: torch.device) -> Iterator[Batch]:
    """The parts in their order, on the device.

    On a GPU a thread of its own copies and augments them on a stream of its own, beside the net. On a CPU that would
    only take cores from the net.
    """
    if device.type == "cuda":
        yield from _beside(parts, prepare, device)
        return
    for part in parts:
        yield _batch(part, prepare, device)


def _beside(parts: Iterator[MicroBatch], prepare: Prepare, device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)

    def make() -> tuple[Batch, torch.cuda.Event] | None:
        part = next(parts, None)
        if part is None:
            return None
        with torch.cuda.stream(stream):
            batch = _batch(part, prepare, device)
            return batch, stream.record_event()

    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(make) for _ in range(_AHEAD))
        while made := waiting.popleft().result():
            waiting.append(thread.submit(make))
            batch, finished = made
            net = torch.cuda.current_stream(device)
            net.wait_event(finished)
            for tensor in (batch.images, batch.labels):
                tensor.record_stream(net)  # its memory is not given away before the net has read it
            yield batch


def _batch(part: MicroBatch, prepare: Prepare, device: torch.device) -> Batch:
    samples = part.samples
    images = prepare([sample.pixels for sample in samples], [sample.view for sample in samples], device)
    labels = torch.tensor([sample.label for sample in samples]).to(device, non_blocking=True)
    return Batch(part.iteration, part.number, images, labels)
