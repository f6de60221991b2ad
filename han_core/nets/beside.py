"""Copies to a GPU and back that go on beside what it computes, and the memory that they need."""

import math
import threading

import torch
from torch import Tensor


class PinnedMemory:
    """Memory of one thread that a GPU reads and writes by itself: one piece for each name, made once, used for each
    clip again, and made anew only where it is too small. Making it takes longer than filling it.

    Without a GPU it is plain memory.
    """

    def __init__(self) -> None:
        self._pieces: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The piece of this name, with arbitrary content. Whatever was taken by this name before is overwritten."""
        size = math.prod(shape) * dtype.itemsize
        piece = self._pieces.get(name)
        if piece is None or len(piece) < size:
            piece = torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
            self._pieces[name] = piece
        return piece[:size].view(dtype).view(shape)


class OwnMemory(threading.local):
    """The pinned memory of each thread that asks."""

    def __init__(self) -> None:
        self.pinned = PinnedMemory()


class Copies:
    """Copies on streams of their own, in the order in which they are asked for, each way.

    Each kind waits for what it needs on the GPU; the host waits for nothing but :meth:`finish`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Tensors of tests claim a GPU that is not there, and streams are made by the driver.
        here = device.type == "cuda" and torch.cuda.is_available()
        self._up = torch.cuda.Stream(device) if here else None
        self._down = torch.cuda.Stream(device) if here else None

    def upload(self, source: Tensor) -> Tensor:
        """A copy on the device, ready for what is computed from now on; ``source`` must not change until then."""
        if self._up is None:
            return source.to(self._device, non_blocking=True)
        with torch.cuda.stream(self._up):
            copy = source.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._up)
        copy.record_stream(computing)  # its memory is not given away before it was read
        return copy

    def download(self, source: Tensor, target: Tensor) -> None:
        """Copy into pinned memory what has been computed by then."""
        if self._down is None:
            target.copy_(source, non_blocking=True)
            return
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            target.copy_(source, non_blocking=True)
        source.record_stream(self._down)

    def mark(self) -> "torch.cuda.Event | None":
        """For :meth:`finish`: all downloads until now."""
        # A thread that waits for it sleeps; for one of another kind it would keep a core busy all the while.
        return None if self._down is None else self._down.record_event(torch.cuda.Event(blocking=True))

    @staticmethod
    def finish(mark: "torch.cuda.Event | None") -> None:
        """Wait until these downloads are here. May be called in any thread."""
        if mark is not None:
            mark.synchronize()
