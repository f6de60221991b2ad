"""Checkpoints that are written beside the steps: a step waits for a copy of the state, and not for the disk."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from han_core.runs.checkpoint import Checkpoint, state_of


class SavedBeside:
    """Writes a run's checkpoints in a thread of its own; a context manager, which waits for the last one.

    A state is copied where it is, on the GPU if it is there and if that has the memory, before the next step changes
    it. The copy is then written as :class:`Checkpoint` does it, so a kill at any moment leaves the checkpoint before.

    Args:
        checkpoint: of the run; None saves nothing.
    """

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self._checkpoint = checkpoint
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]) -> bool:
        """Copy the state and have it written, unless the last save is too young, or still being written.

        Args:
            progress: as of :meth:`Checkpoint.save`.

        Returns:
            Whether it is being written.

        Raises:
            OSError: the last one could not be written.
        """
        checkpoint = self._checkpoint
        if checkpoint is None or not checkpoint.due():
            return False
        if self._writing is not None and not self._writing.done() and not checkpoint.always:
            return False
        self.finish()
        tensors, header = state_of(model, optimizer, progress)
        copies, ready = _copied(tensors)
        self._writing = self._thread.submit(_write, checkpoint, copies, header, ready)
        return True

    def finish(self) -> None:
        """Wait until what was copied is written.

        Raises:
            OSError: it could not be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except OSError:
            if kind is None:  # else something else went wrong before, which is what is told
                raise
        finally:
            self._thread.shutdown()


def _copied(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], "torch.cuda.Event | None"]:
    """Copies of tensors, and when those on a GPU are made; in main memory where the GPU has no room for them."""
    on_gpu = any(value.is_cuda for value in tensors.values())
    try:
        copies = {name: value.detach().clone() for name, value in tensors.items()}
    except torch.OutOfMemoryError:
        return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}, None
    return copies, torch.cuda.current_stream().record_event() if on_gpu else None


def _write(
    checkpoint: Checkpoint, copies: dict[str, Tensor], header: Mapping[str, str], ready: "torch.cuda.Event | None"
) -> None:
    if ready is not None:
        device = next(value.device for value in copies.values() if value.is_cuda)
        beside = torch.cuda.Stream(device)
        # On the net's own stream these copies would wait for its steps, and they for them.
        with torch.cuda.stream(beside):
            beside.wait_event(ready)
            for name, value in copies.items():
                if value.is_cuda:
                    value.record_stream(beside)
                    copies[name] = value.cpu()
    checkpoint.write(copies, header)
