"""Training from features that lie on the GPU, each step replayed as a CUDA graph.

A step of HAN is hundreds of launches of a few microseconds each; launched one by one by Python they take longer than
they run. The first step of each size of batch (there are two: the last batch is smaller) is launched so, which makes
Triton compile, cuBLAS prepare and the optimiser make its state; the second one is captured, and from then on one launch
replays it. What is captured is the whole step, from the numbers of the clips to the weights, so that each step does
what it would do without a graph, bit for bit: a run that resumes from a checkpoint ends with the same weights.

What changes from step to step is read on the device: the clips' numbers and shifts, which are copied to where the graph
expects them, and the dropout, whose seed and count torch hands to the graph.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from han_core.cubes.features import MemoryFeatures
from han_core.cubes.shift import shifted
from han_core.han.steps import Steps

log = logging.getLogger(__name__)

Work = Callable[[], None]


class CudaGraphs:
    """Work on a GPU, captured and replayed."""

    def __init__(self, device: torch.device) -> None:
        self._stream = _stream(device)

    def prepare(self, work: Work) -> None:
        """Do the work as it is, on the stream that will capture it."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def captured(self, work: Work) -> Work:
        """What replays the work, on the current stream. The work itself is not done by this.

        Raises:
            RuntimeError: a part of the work cannot be captured.
        """
        graph, device = torch.cuda.CUDAGraph(), self._stream.device
        current = torch.cuda.current_stream(device)
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                work()
        except RuntimeError:
            # Torch (2.11) leaves the thread on the capturing stream, and dropout's generator believing that it is
            # captured, which ends the next step. A copy of the generator's state has the same seed and count.
            torch.cuda.set_stream(current)
            generator = torch.cuda.default_generators[device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph.replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all trainings on a GPU: cuBLAS keeps 32 MB for each stream that it has ever seen."""
    return torch.cuda.Stream(device)


@dataclass(frozen=True)
class _Captured:
    numbers: Tensor
    offsets: Tensor | None
    replay: Work


class StepsOnDevice:
    """Steps from features that are where the model is.

    Args:
        graphs: None launches every step by itself, as processes that train together must: their sums cross from one
            GPU to another, and dropout depends on which share of the batch a process has.
    """

    def __init__(self, steps: Steps, features: MemoryFeatures, graphs: CudaGraphs | None) -> None:
        self._steps = steps
        self._features = features
        self._labels = features.labels.to(features.device)
        self._graphs = graphs
        self._prepared: set[int] = set()
        self._captured: dict[int, _Captured] = {}

    def take(self, numbers: Tensor, offsets: Tensor | None, whole: int) -> None:
        """Learn from some clips.

        Args:
            numbers: (B,) int64 on the device, as of :meth:`Features.batch`; this process's share of ``whole`` clips.
            offsets: (B, 2) int64 on the device, the clips' shifts (:func:`han_core.cubes.shift.shifted`); None is none.
        """
        size = len(numbers)
        if self._graphs is None:
            self._step(numbers, offsets, whole)
        elif size not in self._prepared:
            self._prepared.add(size)
            self._graphs.prepare(lambda: self._step(numbers, offsets, whole))
        elif size in self._captured or self._capture(numbers, offsets, whole):
            known = self._captured[size]
            known.numbers.copy_(numbers)
            if offsets is not None:
                known.offsets.copy_(offsets)
            known.replay()
        else:
            self._step(numbers, offsets, whole)

    def _capture(self, numbers: Tensor, offsets: Tensor | None, whole: int) -> bool:
        """Whether the step of this size could be captured; if not, none is from now on."""
        own = numbers.clone(), None if offsets is None else offsets.clone()
        try:
            replay = self._graphs.captured(lambda: self._step(*own, whole))
        except RuntimeError as error:
            log.warning(
                "a training step could not be captured as a CUDA graph, so each of its operations is launched by "
                "itself, which is slower and gives the same: %s",
                error,
            )
            self._graphs = None
            return False
        self._captured[len(numbers)] = _Captured(*own, replay)
        return True

    def _step(self, numbers: Tensor, offsets: Tensor | None, whole: int) -> None:
        values = self._features.batch(numbers)
        if offsets is not None:
            values = {stream: shifted(cubes, offsets) for stream, cubes in values.items()}
        self._steps.take(values, self._labels[numbers % len(self._labels)], whole)
