"""From samples to batches on the device, made while the batch before is computed."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from han_core.finetune.samples import MicroBatch
from han_core.nets.crops import apply_views
from han_core.nets.preprocess import Convention

_AHEAD = 2  # batches on a GPU that wait for their turn


@dataclass(frozen=True)
class Batch:
    """A micro batch as the net reads it."""

    iteration: int
    number: int
    images: Tensor
    """(n, channels, 224, 224) float32 in the net's scale."""
    labels: Tensor
    """(n,) int64."""


def batches(
    parts: Iterator[MicroBatch], kind: Literal["frames", "flow"], convention: Convention, device: torch.device
) -> Iterator[Batch]:
    """The parts in their order, on the device.

    On a GPU a thread of its own copies and augments them on a stream of its own, beside the net. On a CPU that would
    only take cores from the net.
    """
    if device.type == "cuda":
        yield from _beside(parts, kind, convention, device)
        return
    for part in parts:
        yield _batch(part, kind, convention, device)


def _beside(
    parts: Iterator[MicroBatch], kind: Literal["frames", "flow"], convention: Convention, device: torch.device
) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)

    def make() -> tuple[Batch, torch.cuda.Event] | None:
        part = next(parts, None)
        if part is None:
            return None
        with torch.cuda.stream(stream):
            batch = _batch(part, kind, convention, device)
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


def _batch(part: MicroBatch, kind: Literal["frames", "flow"], convention: Convention, device: torch.device) -> Batch:
    samples = part.samples
    images = apply_views(
        [sample.pixels for sample in samples],
        [sample.view for sample in samples],
        kind=kind,
        convention=convention,
        device=device,
    )
    labels = torch.tensor([sample.label for sample in samples], device=device)
    return Batch(part.iteration, part.number, images, labels)
